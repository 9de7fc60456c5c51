"""Safetensors files: written whole or not at all, read as memory maps. The only user of `safetensors`.

Metadata stand under one key, ``lossift``, as sorted JSON: safetensors writes several keys in no fixed order, and
equal tensors with equal metadata must be equal files. Mapping costs a header; the data are read when touched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from lossift.atomic import replacing
from lossift.errors import StoreError
from lossift.jsontext import to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U64": np.dtype("<u8"),
}


def map_file(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns the tensors of a safetensors file, mapped read-only, and our metadata."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get("lossift", "{}"))
            # safe_open has checked the header against the file's length; the data are mapped, not read.
        with path.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(header_bytes))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path}: is missing or broken: {error}") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        dtype = _dtype(entry["dtype"], path, name)
        shape, start = tuple(entry["shape"]), 8 + header_bytes + entry["data_offsets"][0]
        if 0 in shape:  # an empty range can't be mapped
            tensors[name] = np.empty(shape, dtype)
        else:
            # Plain arrays over the map: np.memmap's own class is slow to slice and leaks into results.
            tensors[name] = np.asarray(np.memmap(path, dtype, "r", start, shape))
    return tensors, meta


def _dtype(code: str, path: Path, name: str) -> np.dtype[Any]:
    """Returns NumPy's type for a type of safetensors."""
    if code == "BF16":
        # NumPy has none of its own. We write float32; such columns come from others, who have the package.
        try:
            import ml_dtypes
        except ImportError:
            raise StoreError(
                f"{path}: tensor {name!r} has dtype BF16, which NumPy doesn't know by itself",
                hint="pip install ml-dtypes",
            ) from None
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    if code not in _DTYPES:
        raise StoreError(f"{path}: tensor {name!r} has dtype {code}, known are BF16, {', '.join(_DTYPES)}")
    return _DTYPES[code]


def write_file(path: Path, tensors: dict[str, NDArray[Any]], meta: dict[str, Any]) -> None:
    """Writes the tensors and our metadata under `path`, atomically."""
    metadata = {"lossift": to_json(meta)}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(contiguous, metadata))
