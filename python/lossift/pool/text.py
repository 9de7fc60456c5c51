r"""Text containers: JSON Lines, a JSON array, CSV and TSV, each plain or gzipped.

In goes a path, out comes a `TextSource`: the file's bytes (mapped; decompressed in memory for gzip) and two
int64 offsets per row. Opening costs one sweep for the boundaries: a search for newlines for JSON Lines, a parse
for arrays and CSV. Rows are parsed when asked for, and their bytes can be copied at any time.

Lines end at ``\n`` and nowhere else: `str.splitlines` would also cut at U+2028, which occurs inside JSON strings.
"""

from __future__ import annotations

import csv
import gzip
import json
import mmap
import re
import zlib
from abc import abstractmethod
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lossift.errors import PoolError
from lossift.pool.source import Row, TextSource, kind_of

Data = bytes | mmap.mmap

_BOM = b"\xef\xbb\xbf"
_SWEEP = 1 << 24  # bytes searched for newlines at a time
_WHOLE_OBJECT = 1 << 26  # a larger file is not parsed whole just to word a message
_JSON = json.JSONDecoder()
# Python refuses integers of more than 4,300 digits; nothing here calculates with them, so text does.
_JSON_HUGE = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) < 4300 else digits)
_space = re.compile(r"[ \t\r\n]*").match


def read_bytes(path: Path) -> Data:
    """The file's bytes: mapped, or decompressed where the content (not the name) is gzip."""
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(0)
            try:
                return gzip.decompress(file.read())
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise PoolError(f"{path.name}: broken gzip file: {error}") from None
        if path.stat().st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_text(path: Path, name: str, container: str) -> TextSource:
    """The rows of a text file that `find` has recognised as ``container``."""
    data = read_bytes(path)
    match container:
        case "json":
            return JsonArray(path, name, data)
        case "csv" | "tsv":
            return Delimited(path, name, data, container)
        case _:
            return JsonLines(path, name, data)


class _Offsets(TextSource):
    """The part that the three share: bytes, offsets, lines, decoding."""

    def __init__(self, path: Path, name: str, data: Data) -> None:
        self.name = name
        self.files = [path]
        self._data = data
        self._begin = len(_BOM) if data[:3] == _BOM else 0
        self._starts, self._stops = self._boundaries()

    @abstractmethod
    def _boundaries(self) -> tuple[np.ndarray, np.ndarray]:
        """First byte of each row, and the byte after its last: int64[N] each."""

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, index: int) -> bytes:
        """The row's bytes, as they are."""
        return self._data[self._starts[index] : self._stops[index]]

    def line(self, index: int) -> int:
        """The line on which the row starts, from 1."""
        return self._line_at(int(self._starts[index]))

    def _line_at(self, offset: int) -> int:
        sweeps = range(0, offset, _SWEEP)
        return 1 + sum(self._data[at : min(at + _SWEEP, offset)].count(b"\n") for at in sweeps)

    def _text(self, start: int, stop: int) -> str:
        try:
            return str(self._data[start:stop], "utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            at = start + error.start
            raise PoolError(
                f"{self.name}, line {self._line_at(at)}: byte 0x{self._data[at]:02x} is not UTF-8 text; allowed: UTF-8"
            ) from None

    def _broken(self, line: int, what: str) -> NoReturn:
        raise PoolError(f"{self.name}, line {line}: {what}")


class JsonLines(_Offsets):
    """One JSON object per line; blank lines are skipped."""

    container = "jsonl"

    def _boundaries(self) -> tuple[np.ndarray, np.ndarray]:
        data, size = self._data, len(self._data)
        values = np.frombuffer(data, np.uint8)
        sweeps = range(self._begin, size, _SWEEP)
        ends = [np.flatnonzero(values[at : at + _SWEEP] == ord("\n")) + (at + 1) for at in sweeps]
        if size > self._begin and values[-1] != ord("\n"):
            ends.append(np.array([size]))
        stops = np.concatenate([np.empty(0, np.int64), *ends])
        starts = np.concatenate([np.array([self._begin], np.int64), stops])[:-1]
        keep = np.ones(len(stops), bool)
        for line in np.flatnonzero(values[starts] <= ord(" ")):
            keep[line] = bool(data[starts[line] : stops[line]].strip())
        return starts[keep], stops[keep]

    def row(self, index: int) -> Row:
        """The object on the row's line."""
        text = self._text(int(self._starts[index]), int(self._stops[index]))
        try:
            row = _parse(text)
        except json.JSONDecodeError as error:
            if index == 0:
                self._refuse_one_object()
            self._broken(self.line(index), f"broken JSON: {error.msg} (column {error.pos + 1})")
        except RecursionError:
            self._broken(self.line(index), "JSON nested too deeply")
        if type(row) is not dict:
            self._broken(self.line(index), f"found {kind_of(row)}; allowed: an object of fields")
        return row

    def _refuse_one_object(self) -> None:
        """Say so when the file is one object over many lines, not an array or lines."""
        if len(self._data) > _WHOLE_OBJECT:
            return
        try:
            whole = _parse(self._text(self._begin, len(self._data)))
        except (ValueError, RecursionError):
            return
        if not isinstance(whole, dict):
            return
        lists = [field for field, value in whole.items() if isinstance(value, list)]
        raise PoolError(
            f"{self.name}: holds one JSON object with the fields {', '.join(whole)}; "
            "allowed: a JSON array of objects, or one object per line",
            hint=f"write the list {lists[0]!r} into a file of its own" if lists else None,
        )


class JsonArray(_Offsets):
    """One JSON array of objects."""

    container = "json"

    def _boundaries(self) -> tuple[np.ndarray, np.ndarray]:
        text = self._text(self._begin, len(self._data))
        ascii_only = text.isascii()
        starts, stops = array("q"), array("q")
        at_character, at_byte = 0, self._begin

        def byte_of(character: int) -> int:
            """Offset in the file of a character at or after the last one asked for."""
            nonlocal at_character, at_byte
            stretch = character - at_character
            if not ascii_only:
                stretch = len(text[at_character:character].encode("utf-8", "surrogatepass"))
            at_character, at_byte = character, at_byte + stretch
            return at_byte

        at = _after_space(text, _after_space(text, 0) + 1)
        more = text[at : at + 1] != "]"
        while more:
            try:
                end = _parse_at(text, at)
            except json.JSONDecodeError as error:
                self._broken(error.lineno, f"broken JSON: {error.msg} (column {error.colno})")
            except RecursionError:
                self._broken(text.count("\n", 0, at) + 1, "JSON nested too deeply")
            starts.append(byte_of(at))
            stops.append(byte_of(end))
            at = _after_space(text, end)
            more = text[at : at + 1] == ","
            if more:
                at = _after_space(text, at + 1)
            elif text[at : at + 1] != "]":
                found = repr(text[at]) if at < len(text) else "the end of the file"
                self._broken(text.count("\n", 0, at) + 1, f"broken JSON: found {found}; allowed: ',' or ']'")
        after = _after_space(text, at + 1)
        if after < len(text):
            self._broken(text.count("\n", 0, after) + 1, f"broken JSON: {text[after]!r} after the end of the array")
        return np.array(starts, np.int64), np.array(stops, np.int64)

    def row(self, index: int) -> Row:
        """The array's element."""
        row = _parse(self._text(int(self._starts[index]), int(self._stops[index])))
        if type(row) is not dict:
            raise PoolError(f"{self.where(index)}: found {kind_of(row)}; allowed: an object of fields")
        return row


class Delimited(_Offsets):
    """CSV or TSV with a header; quoted fields may hold line ends. Every value is text."""

    def __init__(self, path: Path, name: str, data: Data, container: str) -> None:
        self.container = container
        self.delimiter = "\t" if container == "tsv" else ","
        self.fields: list[str] = []
        self.header = b""
        super().__init__(path, name, data)

    def _boundaries(self) -> tuple[np.ndarray, np.ndarray]:
        newline = self._data.find(b"\n", self._begin)
        first = self._data[self._begin : newline if newline >= 0 else None]
        if self.container == "csv" and b"," not in first:  # what spreadsheets of many countries call CSV
            self.delimiter = next((mark for mark in ";\t" if mark.encode() in first), ",")
        starts, stops = array("q"), array("q")
        lines = _PhysicalLines(self)
        start = self._begin
        with _fields_of_any_size():
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            while True:
                line = lines.read + 1
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    self._broken(line, f"broken {self.container.upper()}: {error}")
                if record is None:
                    break
                if not self.fields:
                    self.fields, self.header = record, self._data[self._begin : lines.stop]
                    self._check_header()
                elif record:
                    if len(record) != len(self.fields):
                        self._broken(line, f"{len(record)} fields; the header has {len(self.fields)}")
                    starts.append(start)
                    stops.append(lines.stop)
                start = lines.stop
        return np.array(starts, np.int64), np.array(stops, np.int64)

    def _check_header(self) -> None:
        twice = sorted({field for field in self.fields if self.fields.count(field) > 1})
        if twice:
            self._broken(1, f"the header names {twice[0]!r} more than once")

    def row(self, index: int) -> Row:
        """The record's fields by the header's names."""
        text = self._text(int(self._starts[index]), int(self._stops[index]))
        with _fields_of_any_size():
            record = next(csv.reader([text], delimiter=self.delimiter, strict=True))
        return dict(zip(self.fields, record, strict=True))


class _PhysicalLines:
    """The lines that `csv.reader` takes, counted: so the bytes of each record are known."""

    def __init__(self, source: _Offsets) -> None:
        self._source = source
        self.stop = source._begin
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        start, data = self.stop, self._source._data
        if start >= len(data):
            raise StopIteration
        end = data.find(b"\n", start)
        self.stop = len(data) if end < 0 else end + 1
        self.read += 1
        return self._source._text(start, self.stop)


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Lift the csv module's global limit of 128 KiB a field, and put it back."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parse(text: str) -> Any:
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _JSON_HUGE.decode(text)


def _parse_at(text: str, at: int) -> int:
    """Where the JSON value that starts at ``at`` ends."""
    try:
        return _JSON.raw_decode(text, at)[1]
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _JSON_HUGE.raw_decode(text, at)[1]


def _after_space(text: str, at: int) -> int:
    found = _space(text, at)
    return at if found is None else found.end()
