"""What a loss store knows of itself: `store.json`, the pool it belongs to, and whether a given pool is that one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift.atomic import write_bytes
from lossift.errors import ArgumentError, StoreError
from lossift.jsontext import to_json
from lossift.pool import ID_HASH, digest_files, reopen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Pool

FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYS = {"n_examples", "pool", "views", "states", "info"}


def new_index(pool: Pool) -> dict[str, Any]:
    """Returns the index of a store for `pool` that holds nothing yet."""
    return {
        "format": "lossift",
        "version": FORMAT_VERSION,
        "id_hash": ID_HASH,
        "n_examples": len(pool),
        "pool": {"spec": pool.spec, "fingerprint": _digested(pool)},
        "views": [],
        "states": [],
        "info": {},
    }


def read_index(path: Path) -> dict[str, Any]:
    """Returns the index of the store at `path`; anything else there is a `StoreError`."""
    if not path.exists():
        raise StoreError(f"{path}: there is no such loss store", hint="make one: lossift trace or lossift score")
    if not path.is_dir():
        raise StoreError(f"{path}: is a file, not a loss store", hint="score it first: lossift trace or lossift score")
    try:
        index = json.loads((path / "store.json").read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{path}: is not a loss store: it has no store.json") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path / 'store.json'}: can't be read: {error}") from error
    if not isinstance(index, dict) or index.get("format") != "lossift":
        raise StoreError(f"{path / 'store.json'}: is not a loss store's")
    if index.get("version") != FORMAT_VERSION:
        raise StoreError(
            f"{path}: has format version {index.get('version')}, this lossift reads version {FORMAT_VERSION}"
        )
    if missing := sorted(_KEYS - index.keys()):
        raise StoreError(f"{path / 'store.json'}: lacks {', '.join(missing)}")
    return index


def write_index(path: Path, index: dict[str, Any]) -> None:
    """Writes the index, whole or not at all."""
    write_bytes(path / "store.json", f"{to_json(index, indent=2)}\n".encode())


def check_same_pool(path: Path, index: dict[str, Any], ids: NDArray[np.uint64], pool: Pool) -> None:
    """Refuses a pool whose examples aren't those of the store; the message shows both."""
    if len(pool) == len(ids) and np.array_equal(pool.ids, ids):
        return
    recorded = index["pool"]["fingerprint"]
    raise StoreError(
        f"{path}: holds the losses of another pool: {_describe(recorded, index['pool']['spec'])}; "
        f"given: {_describe(_digested(pool), pool.spec)}",
        hint="give another --out, or the pool (and --limit, --seed) that was scored",
    )


def reopen_unchanged(path: Path, index: dict[str, Any], source_rows: NDArray[np.int64] | None) -> Pool:
    """Returns the pool of the store; refuses files that changed since they were scored, with both fingerprints.

    Sizes and modification times are compared; bytes are read only when those differ.
    """
    recorded = index["pool"]["fingerprint"]
    files = [Path(file["path"]) for file in recorded["files"]]
    if all(file.exists() for file in files):  # what is gone, reading it again will say
        touched = any(
            (file.stat().st_size, file.stat().st_mtime_ns) != (known["size"], known["mtime_ns"])
            for file, known in zip(files, recorded["files"], strict=True)
        )
        if touched and (found := digest_files(files)) != recorded["digest"]:
            raise StoreError(
                f"{', '.join(map(str, files))}: has changed since it was scored: {path} holds digest "
                f"{recorded['digest']}, found {found}",
                hint="score the pool again into another --out, or bring the file back",
            )
    return reopen(index["pool"]["spec"], source_rows)


def check_name(what: str, name: str) -> None:
    """Refuses names that can't stand in a file name or in `state@view#quantity`."""
    if not _NAME.fullmatch(name):
        raise ArgumentError(f"{what}: found {name!r}, allowed are letters, digits, '.', '_' and '-'")


def holds_something_else(path: Path) -> bool:
    """Returns whether a folder holds more than a store begun by a run that was cut off."""
    return any(p.name != "examples.safetensors" and not p.name.endswith(".tmp") for p in path.iterdir())


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Returns in which keys two records differ, with both values."""
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return "; ".join(f"{key}: there {old.get(key)!r}, given {new.get(key)!r}" for key in keys)


def _digested(pool: Pool) -> dict[str, Any]:
    return pool.fingerprint | {"digest": pool.digest()}


def _describe(fingerprint: dict[str, Any], spec: dict[str, Any]) -> str:
    names = ", ".join(Path(file["path"]).name for file in fingerprint["files"]) or "in memory"
    part = f" (limit {spec['limit']}, seed {spec['seed']})" if spec["limit"] else ""
    return f"{names}, {spec['n_examples']} examples{part}, digest {fingerprint['digest']}"
