r"""Chosen rows back into a file, untouched, all of them or none.

In go sources with the rows chosen of each, out comes one file whose extension says the container. Where that is the
container they came from, what is written is what was read: the same bytes per line, array element or CSV
record; for Parquet the same schema, values and compression. The frame is ours: brackets and commas of an array, the
header of a CSV once, a line end where the file's last line had none and something follows.

Between containers JSON stays the user's bytes too: a line break in valid JSON is never inside a string, so an
element becomes a line by turning its breaks into spaces. Only to and from tables are values converted.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any, cast

from lossift.atomic import replacing
from lossift.errors import ArgumentError, PoolError
from lossift.pool.source import Row, Rows, Source, TableSource, TextSource
from lossift.pool.text import Delimited

Part = tuple[Source, Rows]  # a source and the ascending rows chosen of it

CONTAINERS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_GROUP_ROWS = 1 << 20  # a row group is closed after this many rows
_GROUP_BYTES = 1 << 28  # or this many bytes
_break_in_json = re.compile(rb"[\r\n][ \t\r\n]*")


def container_of(path: Path) -> tuple[str, bool]:
    """The container that a file name asks for, and whether gzipped.

    Examples
    --------
    >>> container_of(Path("subset.json.gz"))
    ('json', True)
    """
    name = path.name.lower()
    gzipped = name.endswith(".gz")
    container = CONTAINERS.get(Path(name.removesuffix(".gz")).suffix)
    if container is None or (gzipped and container == "parquet"):
        allowed = ", ".join(f"{suffix}[.gz]" for suffix in CONTAINERS if suffix != ".parquet")
        raise ArgumentError(f"out: can't tell the container of {path.name!r}; allowed: {allowed}, .parquet")
    return container, gzipped


def write_rows(parts: Sequence[Part], path: Path) -> None:
    """Write the chosen rows to ``path``, replacing what stands there.

    Raises
    ------
    ArgumentError
        If the extension is unknown, or ``path`` is a file of the pool.
    PoolError
        If a value can't be held by the container asked for.
    DiskError
        If the disk is full or the folder can't be written; nothing is left behind.
    """
    container, gzipped = container_of(path)
    for source, _ in parts:
        if any(path.exists() and file.exists() and path.samefile(file) for file in source.files):
            raise ArgumentError(f"out: {path} is a file of the pool itself; allowed: another name")
    with replacing(path) as temporary, temporary.open("wb") as file:
        if container == "parquet":
            _write_parquet(parts, file)
        elif gzipped:
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:  # no name, no time: same rows, same file
                packed.writelines(_pieces(parts, container))
        else:
            file.writelines(_pieces(parts, container))


def _pieces(parts: Sequence[Part], container: str) -> Iterator[bytes]:
    """The bytes of a text container, piece by piece."""
    match container:
        case "jsonl":
            return _lines(parts)
        case "json":
            return _array(parts)
        case _:
            return _records(parts, container)


def _lines(parts: Sequence[Part]) -> Iterator[bytes]:
    """JSON Lines."""
    ended = True
    for source, rows in parts:
        for line in _json_lines(source, rows):
            if not ended:
                yield b"\n"
            yield line
            ended = line.endswith(b"\n")


def _json_lines(source: Source, rows: Rows) -> Iterator[bytes]:
    """A source's rows as lines; a line of the user's that had no end has none."""
    if isinstance(source, TextSource) and source.container == "jsonl":
        yield from map(source.raw, map(int, rows))
    elif isinstance(source, TextSource) and source.container == "json":
        yield from (_break_in_json.sub(b" ", source.raw(int(row))) + b"\n" for row in rows)
    else:
        yield from (_dump(fields) + b"\n" for fields in source.rows(rows))


def _array(parts: Sequence[Part]) -> Iterator[bytes]:
    """A JSON array, one element under the other."""
    before = b"[\n"
    for source, rows in parts:
        for element in _json_elements(source, rows):
            yield before
            yield element
            before = b",\n"
    yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _json_elements(source: Source, rows: Rows) -> Iterator[bytes]:
    if isinstance(source, TextSource) and source.container in ("jsonl", "json"):
        return (source.raw(int(row)).strip() for row in rows)
    return map(_dump, source.rows(rows))


def _records(parts: Sequence[Part], container: str) -> Iterator[bytes]:
    """CSV or TSV: the user's records, or values converted."""
    first = parts[0][0]
    if not (isinstance(first, Delimited) and first.container == container):
        yield from _converted_records(parts, "\t" if container == "tsv" else ",")
        return
    yield first.header
    end = b"\r\n" if first.header.endswith(b"\r\n") else b"\n"
    ended = first.header.endswith(b"\n")
    for source, rows in parts:
        for row in rows:
            if not ended:
                yield end
            record = cast(TextSource, source).raw(int(row))
            yield record
            ended = record.endswith(b"\n")


def _converted_records(parts: Sequence[Part], delimiter: str) -> Iterator[bytes]:
    """Values as CSV; what isn't text or a number becomes JSON. Reads the rows twice: once for the columns."""
    columns = list(dict.fromkeys(field for source, rows in parts for row in source.rows(rows) for field in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for source, rows in parts:
        for row in source.rows(rows):
            yield _drain(buffer)
            writer.writerow([_cell(row.get(column)) for column in columns])
    yield _drain(buffer)


def _drain(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode("utf-8", "surrogatepass")


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    text = _dump(value).decode()
    return json.loads(text) if text.startswith('"') else text


def _dump(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: not UTF-8, but JSON can spell it
        return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    """What JSON holds instead of a value that it doesn't know."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _write_parquet(parts: Sequence[Part], file: IO[bytes]) -> None:
    """Parquet: tables as they are, everything else with the types that its values suggest (all rows in memory)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        sources = [source for source, _ in parts if isinstance(source, TableSource)]
        if sources:
            schemas = [source.schema for source in sources]
            schema = schemas[0] if len(schemas) == 1 else _joint(schemas)
            tables: Iterable[Any] = (
                table.cast(schema) if table.schema != schema else table
                for source, rows in parts
                for table in cast(TableSource, source).tables(rows)
            )
            compression = getattr(sources[0], "codecs", None) or "zstd"
        else:
            table = _inferred([row for source, rows in parts for row in source.rows(rows)])
            schema, tables, compression = table.schema, [table], "zstd"
        with pq.ParquetWriter(file, schema, compression=compression) as writer:
            for group in _groups(tables):
                writer.write_table(pa.concat_tables(group), row_group_size=_GROUP_ROWS)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise PoolError(
            f"out: these rows don't fit a Parquet table: {reason}", hint="choose another extension, such as .jsonl"
        ) from None


def _joint(schemas: list[Any]) -> Any:
    """The schema of all shards: the first's, with types wide enough for every one."""
    import pyarrow as pa

    if all(schema.equals(schemas[0]) for schema in schemas):
        return schemas[0]
    return pa.unify_schemas(schemas, promote_options="permissive")


def _inferred(rows: list[Row]) -> Any:
    import pyarrow as pa

    columns = dict.fromkeys(field for row in rows for field in row)
    try:
        return pa.table({column: [row.get(column) for row in rows] for column in columns})
    except (UnicodeEncodeError, OverflowError) as error:
        raise PoolError(
            f"out: these rows don't fit a Parquet table: {error}",
            hint="choose another extension, such as .jsonl",
        ) from None


def _groups(tables: Iterable[Any]) -> Iterator[list[Any]]:
    """Small tables gathered into row groups."""
    group: list[Any] = []
    n_rows = n_bytes = 0
    for table in tables:
        group.append(table)
        n_rows, n_bytes = n_rows + len(table), n_bytes + table.nbytes
        if n_rows >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
            yield group
            group, n_rows, n_bytes = [], 0, 0
    if group:
        yield group
