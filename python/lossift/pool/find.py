"""From what the user calls a pool to its sources: files, globs, folders, hub ids, tables and lists.

Content decides what a file is: gzip, Parquet and JSON announce themselves in their first bytes, and a ``.json`` file
with an object per line is JSON Lines. The name matters only for CSV and TSV, which look like nothing in particular.
All sources of a pool are of one container, since its rows go back into one.
"""

from __future__ import annotations

import glob
import gzip
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossift.errors import ArgumentError, MissingExtraError, PoolError, PoolNotFoundError
from lossift.pool.source import MemorySource, Source
from lossift.pool.text import Delimited, open_text

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_CONTAINERS = "JSON array, JSON Lines, CSV, TSV (each also .gz), Parquet, a folder saved by `datasets`"
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<config>[\w.-]+))?")


@dataclass(frozen=True)
class Found:
    """A pool's sources, and how to find the same ones again (None for data in memory)."""

    sources: list[Source]
    paths: list[str] | None = None
    hub: str | None = None


def find(pool: Any, split: str | None) -> Found:
    """The sources of a pool.

    Parameters
    ----------
    pool
        A path, a glob, a folder of shards or one saved by `datasets`, a hub id, a sequence of paths, a
        `datasets.Dataset` or a list of dicts.
    split
        Which split of a hub id, of a saved folder or of a `datasets.DatasetDict`; None for its only one.

    Raises
    ------
    PoolNotFoundError
        If there is no such file and it can't be a hub id.
    PoolError
        If it is no container known, or several.
    ArgumentError
        If it is none of the above, or `split` doesn't apply.
    MissingExtraError
        If it is a hub id and `datasets` isn't installed.
    """
    if isinstance(pool, str | os.PathLike):
        return _find_path(os.fspath(pool), split)
    if sys.modules.get("datasets") is not None:
        import datasets

        if isinstance(pool, datasets.Dataset | datasets.DatasetDict):
            return _found_dataset(pool, split, "the dataset")
    if isinstance(pool, Sequence) and len(pool) > 0:
        if all(isinstance(item, str | os.PathLike) for item in pool):
            return _found_files([file for item in pool for file in _files_of(os.fspath(item))], split)
        if isinstance(pool[0], dict):
            _refuse_split(split)
            return Found([MemorySource(pool)])
    if isinstance(pool, Sequence):
        raise PoolError("pool: found an empty list; allowed: paths, or dicts of fields")
    raise ArgumentError(
        f"pool: found {type(pool).__name__}; allowed: a path, a glob, a folder, a hub id, several paths, "
        "a datasets.Dataset or a list of dicts"
    )


def reopen_files(paths: list[str] | None, hub: str | None, split: str | None) -> list[Source]:
    """The sources that `find` once found, by the absolute paths or the hub id it kept."""
    if paths is None and hub is None:
        raise PoolError(
            "this pool was handed over as Python objects, so it can't be opened again from a file",
            hint="pass the pool itself where its rows are needed, or score it from a file",
        )
    if hub is not None:
        return _find_hub(hub, split).sources
    assert paths is not None
    if len(paths) == 1 and Path(paths[0]).is_dir():
        return _find_path(paths[0], split).sources
    return _found_files([Path(path) for path in paths], None).sources


def _find_path(given: str, split: str | None) -> Found:
    path = Path(given).expanduser()
    if _is_saved(path):
        from lossift.pool.tables import open_saved

        return Found([open_saved(path, split)], paths=[str(path.resolve())])
    could_be_file = path.exists() or path.parent.is_dir() or _suffix(path) in _SUFFIXES
    if not could_be_file and _HUB_ID.fullmatch(given):
        return _find_hub(given, split)
    return _found_files(_files_of(given), split)


def _files_of(given: str) -> list[Path]:
    """The files that one argument stands for, sorted by name."""
    path = Path(given).expanduser()
    if _is_saved(path):
        raise PoolError(f"{path}: a folder saved by `datasets` among several paths; allowed: such a folder alone")
    if path.is_dir():
        visible = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        files = [file for file in visible if _suffix(file) in _SUFFIXES]
        if not files:
            held = ", ".join(file.name for file in visible[:5]) or "no file"
            raise PoolError(f"{path}: a folder that holds {held}; allowed: shards of {_CONTAINERS}")
        return files
    if path.exists():
        return [path]
    if glob.has_magic(given):
        files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207  (absolute too)
        files = [file for file in files if file.is_file()]
        if not files:
            raise PoolNotFoundError(f"{given}: no file fits this pattern")
        return files
    raise PoolNotFoundError(f"{given}: no such file, folder or pattern")


def _found_files(files: list[Path], split: str | None) -> Found:
    _refuse_split(split)
    files = [file.resolve() for file in files]
    twice = [file for file in files if files.count(file) > 1] if len(set(files)) < len(files) else []
    if twice:
        raise PoolError(f"{twice[0]}: given twice; allowed: every file once")
    for file in files:
        if not file.exists():
            raise PoolNotFoundError(f"{file}: no such file")
        if not file.is_file():
            raise PoolError(f"{file}: found no ordinary file; allowed: {_CONTAINERS}")
    folder = os.path.commonpath([file.parent for file in files])
    sources = [_open(file, file.relative_to(folder).as_posix()) for file in files]
    for source in sources[1:]:
        if source.container != sources[0].container:
            raise PoolError(
                f"{sources[0].name} holds {sources[0].container} and {source.name} {source.container}; "
                "allowed: files of one container",
                hint="name the files with a pattern, as in 'folder/*.parquet'",
            )
    _check_same_columns(sources)
    return Found(sources, paths=[str(file) for file in files])


def _open(path: Path, name: str) -> Source:
    container = _container(path)
    if container == "parquet":
        from lossift.pool.tables import Parquet

        return Parquet(path, name)
    return open_text(path, name, container)


def _container(path: Path) -> str:
    """What a file is, from its first bytes; from its name where they don't say."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                head = unpacked.read(4096)
    except (OSError, EOFError) as error:
        raise PoolError(f"{path.name}: can't be read: {error}") from None
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise PoolError(f"{path.name}: UTF-16 text; allowed: UTF-8")
    suffix = _suffix(path)
    if suffix in (".csv", ".tsv"):
        return suffix[1:]
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return "json"
    if start == b"{" or suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    if suffix == ".parquet":
        raise PoolError(f"{path.name}: broken Parquet file: it doesn't start with PAR1")
    raise PoolError(f"{path.name}: unknown container; allowed: {_CONTAINERS}")


def _is_saved(path: Path) -> bool:
    """Whether this is a folder that ``save_to_disk`` of `datasets` wrote."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _check_same_columns(sources: list[Source]) -> None:
    """Rows of several tables go back under one header, so the headers and delimiters agree."""
    if isinstance(sources[0], Delimited):
        columns = [source.fields for source in sources if isinstance(source, Delimited)]
    elif sources[0].container == "parquet":
        columns = [source.schema.names for source in sources]  # type: ignore[attr-defined]
    else:
        return
    for source, names in zip(sources[1:], columns[1:], strict=True):
        if names != columns[0]:
            raise PoolError(
                f"{sources[0].name} has the columns {', '.join(columns[0])} and {source.name} "
                f"{', '.join(names)}; allowed: the same columns in every file"
            )
    marks = [(source.name, source.delimiter) for source in sources if isinstance(source, Delimited)]
    for name, mark in marks[1:]:
        if mark != marks[0][1]:
            raise PoolError(
                f"{marks[0][0]} has {marks[0][1]!r} between its fields and {name} {mark!r}; "
                "allowed: the same delimiter in every file"
            )


def _find_hub(given: str, split: str | None) -> Found:
    """A data set on the Hugging Face hub, ``owner/name`` or ``owner/name:config``, through its own cache."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"{given}: no such file, and reading a hub id needs the package `datasets`",
            hint="pip install 'lossift[score]'",
        ) from None
    named = _HUB_ID.fullmatch(given)
    assert named is not None
    try:
        chosen = split
        if split is None:
            from lossift.pool.tables import choose_split

            chosen = choose_split(None, datasets.get_dataset_split_names(named["id"], named["config"]), given)
        dataset = datasets.load_dataset(named["id"], named["config"], split=chosen)
    except PoolError:
        raise
    except Exception as error:  # datasets raises what its file systems and scripts raise
        reason = str(error).partition("\n")[0]
        raise PoolNotFoundError(
            f"{given}: no such file, and no data set that the hub gives: {type(error).__name__}: {reason}",
            hint=f"a configuration is named as in {named['id']}:main" if "onfig" in str(error) else None,
        ) from error
    return Found(_found_dataset(dataset, None, f"{given}/{chosen}").sources, hub=given)


def _found_dataset(dataset: Any, split: str | None, name: str) -> Found:
    """The rows of a `datasets.Dataset`, or of one split of a `datasets.DatasetDict`."""
    from lossift.pool.tables import choose_split, open_dataset

    if isinstance(dataset, dict):
        split = choose_split(split, list(dataset), name)
        return Found([open_dataset(dataset[split], f"{name}/{split}")])
    _refuse_split(split)
    return Found([open_dataset(dataset, name)])


def _refuse_split(split: str | None) -> None:
    if split is not None:
        raise ArgumentError(
            f"split: found {split!r}; allowed only for a hub id or a folder saved by `datasets` with several splits"
        )
