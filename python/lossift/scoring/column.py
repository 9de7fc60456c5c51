"""Columns: the losses of a whole pool under one model, written part by part into a store.

Enter: a store, a view and its tokens, a model. Leaves: a sealed column. What decides the bits goes into the
column's metadata, and nothing that depends on the run, so a column scored again is the same file.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from lossift.errors import StoreError
from lossift.reasons import Reason
from lossift.scoring.encode import Encoded, Encoding, Progress, Talk, encode
from lossift.scoring.forward import Forward, default_token_budget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Pool
    from lossift.store import LossStore

PART_ROWS = 1024


class Recording:
    """Everything that records losses shares: the store, the view with its tokens, and how to score.

    The pool is tokenised when the first column needs it, or the view is new; a finished job never does.

    Parameters
    ----------
    store
        Where columns go.
    pool, encoding
        What is scored, and how it becomes tokens.
    view
        The view's name; the template's unless given.
    token_budget
        Padded tokens per batch; by device unless given.
    """

    def __init__(
        self,
        store: LossStore,
        pool: Pool,
        encoding: Encoding,
        *,
        view: str | None = None,
        token_budget: int | None = None,
        part_rows: int = PART_ROWS,
        talk: Talk | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.store = store
        self.view = view or encoding.template.name
        self.token_budget = token_budget
        self.part_rows = part_rows
        self.talk: Talk = talk or (lambda _: None)
        self.progress = progress
        self._pool = pool
        self._encoding = encoding
        self._encoded: Encoded | None = None
        there = store.views.get(self.view)
        if there is None or there.meta != encoding.meta:
            if there is not None:
                self._declare(np.zeros((3, len(pool)), dtype=np.int32))  # refused, before any work is done
            encoded = self.encoded
            self._declare(np.stack([encoded.n_supervised, encoded.n_tokens, encoded.why_invalid]))
        for state in store.declared_states:
            if sealed := self.sealed_meta(state.name):
                # Removes the parts that a crash after sealing has left; nobody else asks for a finished column.
                store.writer(state.name, self.view, meta=sealed, part_rows=sealed["part_rows"])

    @property
    def encoded(self) -> Encoded:
        """The pool as tokens, made on first use."""
        if self._encoded is None:
            self._encoded = encode(self._pool, self._encoding, progress=self.progress)
            self._tell(self._encoded)
        return self._encoded

    def is_sealed(self, state: str) -> bool:
        """Whether the losses of `state` are there, whatever weights they are of."""
        return self.sealed_meta(state) is not None

    def sealed_meta(self, state: str) -> dict[str, Any] | None:
        """Returns how the column of `state` was computed, or None when it isn't sealed."""
        try:
            return self.store.column_meta(f"{state}@{self.view}")
        except StoreError:
            return None

    def record(self, state: str, model: Any, weights: str) -> None:
        """Scores the pool under `model`, as far as it isn't yet, and seals the column.

        Parameters
        ----------
        weights
            Digest of the model's weights: parts that other weights left are discarded.
        """
        device = next(model.parameters()).device
        budget = self.token_budget or default_token_budget(device.type)
        meta = {
            "attention": str(model.config._attn_implementation),
            "device": device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "software": {
                "lossift": version("lossift"),
                "torch": str(torch.__version__),
                "transformers": str(transformers.__version__),
            },
            "step": next(s.step for s in self.store.declared_states if s.name == state),
            "token_budget": budget,
            "weights": weights,
        }
        writer = self.store.writer(state, self.view, meta=meta, part_rows=self.part_rows)
        if writer.sealed:
            return
        encoded = self.encoded
        forward = Forward(model, budget)
        parts = writer.missing
        total = int(encoded.offsets[-1])
        todo = sum(int(encoded.offsets[stop] - encoded.offsets[start]) for start, stop in parts)
        done, non_finite, started = total - todo, 0, time.monotonic()
        for start, stop in parts:
            loss, why = forward.losses(encoded, start, stop)
            writer.write_part(start, stop, loss, why)
            non_finite += int((why == Reason.NON_FINITE_LOSS).sum())
            done += int(encoded.offsets[stop] - encoded.offsets[start])
            if self.progress:
                self.progress(f"scoring {state}", done, total)
        writer.seal()
        seconds = max(time.monotonic() - started, 1e-9)
        trouble = f"; {non_finite:,} with a non-finite loss" if non_finite else ""
        self.talk(f"{state}: {todo:,} tokens in {seconds:.1f} s ({todo / seconds:,.0f} a second){trouble}")

    def _declare(self, counts: NDArray[np.int32]) -> None:
        n_supervised, n_tokens, why_invalid = counts
        self.store.add_view(
            self.view,
            n_supervised=n_supervised,
            n_tokens=n_tokens,
            why_invalid=why_invalid.astype(np.uint8),
            meta=self._encoding.meta,
        )

    def _tell(self, encoded: Encoded) -> None:
        template = self._encoding.template
        n_valid = int((encoded.why_invalid == Reason.VALID).sum())
        self.talk(
            f"view {self.view}: template {template.name}, at most {self._encoding.max_length:,} tokens; "
            f"{int(encoded.offsets[-1]):,} tokens, {int(encoded.supervised.sum()):,} of them supervised"
        )
        if template.places_input:
            self.talk(f"template {template.name}: {_printed(self._encoding)!r}")
        if encoded.n_cut:
            self.talk(f"{encoded.n_cut:,} examples: prompt cut at its left")
        if n_valid < len(encoded.why_invalid):
            codes, counts = np.unique(encoded.why_invalid, return_counts=True)
            reasons = ", ".join(
                f"{count:,} {Reason(code).text}" for code, count in zip(codes, counts, strict=True) if code
            )
            self.talk(f"{len(encoded.why_invalid) - n_valid:,} examples are invalid: {reasons}")
        if encoded.first_broken:
            row, complaint = encoded.first_broken
            self.talk(f"{self._pool.where(row)}: {complaint}")


def _printed(encoding: Encoding) -> str:
    """Returns the template with names in the places of its contents."""
    from lossift.pool import Message

    messages = (Message("user", "{prompt}", "{input}"), Message("assistant", "{response}"))
    return encoding.template.render(encoding.tokenizer, messages)
