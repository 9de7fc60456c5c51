"""A loss store of any size for the benches, straight into the documented format (docs/store.md), block by block.

A pool of 100,000,000 examples as rows of text would be a day's work to make; a store needs none of it. Losses come
from `trajectories.py`; ids are a permutation of the 64-bit numbers; every example is valid. Memory: one block.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from lossift import LossStore
from trajectories import BLOCK, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_DTYPES = {"float32": ("F32", 4), "int32": ("I32", 4), "uint64": ("U64", 8), "uint8": ("U8", 1)}
_ODD = np.uint64(0x9E3779B97F4A7C15)


def size_on_disk(n_examples: int, n_states: int) -> int:
    """Returns how many bytes `write` puts on disk, headers aside."""
    return n_examples * (8 + 9 + 5 * n_states)


def write(path: Path, n_examples: int, n_states: int, seed: int = 0) -> None:
    """Writes a store of `n_states` states in one view, and opens it once to see that it is one."""
    states = [{"name": f"step-{i + 1}", "step": i + 1, "meta": {}} for i in range(n_states)]
    names = [f"columns/plain/{state['step']:04d}-{state['name']}.safetensors" for state in states]
    with ExitStack() as files:

        def new_file(name: str, meta: dict[str, Any], **tensors: str) -> _Tensors:
            return files.enter_context(_Tensors(path / name, n_examples, tensors, meta))

        examples = new_file("examples.safetensors", {"id_hash": "made up", "strata": {}}, id="uint64")
        view = new_file("views/plain.safetensors", {}, n_supervised="int32", n_tokens="int32", why_invalid="uint8")
        columns = [
            new_file(name, {"state": state["name"], "view": "plain"}, loss="float32", why_invalid="uint8")
            for name, state in zip(names, states, strict=True)
        ]
        valid, tokens = np.zeros(BLOCK, np.uint8), np.full(BLOCK, 100, np.int32)
        for start, block in blocks("trajectories", n_examples, n_states, seed):
            rows = block.shape[1]
            examples.put("id", start, np.arange(start, start + rows, dtype=np.uint64) * _ODD)
            for name in ("n_supervised", "n_tokens"):
                view.put(name, start, tokens[:rows])
            view.put("why_invalid", start, valid[:rows])
            for column, losses in zip(columns, block, strict=True):
                column.put("loss", start, losses)
                column.put("why_invalid", start, valid[:rows])
    index = {
        "format": "lossift",
        "version": 1,
        "id_hash": "made up",
        "n_examples": n_examples,
        "pool": {"spec": {}, "fingerprint": {}},
        "views": ["plain"],
        "states": states,
        "info": {},
    }
    (path / "store.json").write_text(json.dumps(index))
    store = LossStore(path)
    assert (store.n_examples, len(store.states)) == (n_examples, n_states)


class _Tensors:
    """One safetensors file of vectors of length N, filled piece by piece."""

    def __init__(self, path: Path, n_examples: int, tensors: dict[str, str], meta: dict[str, Any]) -> None:
        header: dict[str, Any] = {"__metadata__": {"lossift": json.dumps(meta, sort_keys=True)}}
        self._starts, at = {}, 0
        for name, dtype in tensors.items():
            code, width = _DTYPES[dtype]
            header[name] = {"dtype": code, "shape": [n_examples], "data_offsets": [at, at + width * n_examples]}
            self._starts[name] = (at, width)
            at += width * n_examples
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # data are aligned
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb", buffering=0)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._data = 8 + len(text)

    def put(self, name: str, row: int, values: NDArray[Any]) -> None:
        """Writes `values` from `row` on."""
        start, width = self._starts[name]
        self._file.seek(self._data + start + width * row)
        self._file.write(np.ascontiguousarray(values).data)

    def __enter__(self) -> _Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())  # or the disk is still busy with it while others are timed
        self._file.close()
