"""Forward passes: from encoded examples to one mean loss each.

Enter: a causal language model and rows of an `Encoded`. Leave: float32 losses in nats per supervised token and
the reason where there is none. Shapes: B examples, T tokens, D hidden size, P predictions, V vocabulary.

- Rows are sorted by length and cut into batches of at most ``token_budget`` padded tokens, so pads are rare.
- Padding is on the right and there is no attention mask: under causal attention a real token never sees a
  later pad. The tokenizer's own padding side and pad token play no role. What follows the last token that is
  needed to predict a supervised one is not fed at all.
- The head runs on the P positions that predict a supervised token, in chunks: no (B, T, V) tensor ever exists.
- Logits go to float32, the losses of an example's tokens are summed in float64.

The batches are a function of the rows and the budget alone, so a part scored again is the same part.
Cost: one forward of the body over all tokens, one head product per supervised token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lossift.errors import ModelError
from lossift.reasons import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.scoring.encode import Encoded

LOGITS_BYTES = 64 << 20  # one chunk of float32 logits; the float32 copy and its exponentials double it


def default_token_budget(device: str) -> int:
    """Returns the padded tokens per batch.

    On a CPU: SmolLM2-135M on two AVX-512 cores scores 860 tokens a second at 256, 900 at 512 and 1,024, 860 at 2,048.
    Elsewhere: unmeasured; enough to fill a GPU, and 1 GB of activations for such a model.
    """
    return 1024 if device == "cpu" else 16384


def plan_batches(lengths: NDArray[np.integer[Any]], token_budget: int) -> list[NDArray[np.int64]]:
    """Returns batches of indices into `lengths`, longest first, each padded to at most `token_budget` tokens.

    An example longer than the budget gets a batch of its own. Longest first, so that a lack of memory shows at
    once and not after an hour.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


class Forward:
    """The losses of examples under one model, as it is now.

    Parameters
    ----------
    model
        A causal language model of `transformers`, in memory.
    token_budget
        Padded tokens per batch.
    """

    def __init__(self, model: Any, token_budget: int) -> None:
        self.model = model
        self.token_budget = token_budget
        self.device = next(model.parameters()).device
        with _as_in_eval(model):
            self.head = model.get_output_embeddings() if self._head_is_last() else None

    def losses(self, encoded: Encoded, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Returns mean losses float32[stop - start] and why they are invalid, uint8; NaN where they are."""
        loss = np.full(stop - start, np.nan, dtype=np.float32)
        why = encoded.why_invalid[start:stop].copy()
        rows = np.flatnonzero(why == Reason.VALID)
        needed = np.array([_n_inputs(encoded, start + int(row)) for row in rows], dtype=np.int64)
        with _as_in_eval(self.model):
            for batch in plan_batches(needed, self.token_budget):
                loss[rows[batch]] = self._batch(encoded, start + rows[batch], needed[batch])
        why[(why == Reason.VALID) & ~np.isfinite(loss)] = Reason.NON_FINITE_LOSS
        loss[why != Reason.VALID] = np.nan
        return loss, why

    def _batch(self, encoded: Encoded, rows: NDArray[np.int64], n_inputs: NDArray[np.int64]) -> NDArray[np.float32]:
        n_rows, width = len(rows), int(n_inputs.max())
        ids_BT = np.zeros((n_rows, width), dtype=np.int64)  # any id pads: nothing that counts looks at it
        positions, targets, owners = [], [], []
        for i, row in enumerate(rows):
            tokens, supervised = encoded.row(row)
            ids_BT[i, : n_inputs[i]] = tokens[: n_inputs[i]]
            predicted = np.flatnonzero(supervised[1:])  # the position before each supervised token
            positions.append(i * width + predicted)
            targets.append(tokens[predicted + 1])
            owners.append(np.full(len(predicted), i))
        position_P, owner_P = np.concatenate(positions), np.concatenate(owners)
        target_P = torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(self.device)
        try:
            nll_P = self._nll(torch.from_numpy(ids_BT).to(self.device), position_P, target_P)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"out of memory on {self.device} with {n_rows} examples of {width} tokens",
                hint=f"use a smaller token_budget than {self.token_budget}",
            ) from error
        sums = np.bincount(owner_P, weights=nll_P.astype(np.float64), minlength=n_rows)
        return (sums / np.bincount(owner_P, minlength=n_rows)).astype(np.float32)

    def _nll(self, ids_BT: Any, position_P: NDArray[np.int64], target_P: Any) -> NDArray[np.float32]:
        """Returns float32[P]: negative log-likelihoods of the targets after the positions of ``ids_BT``."""
        nll = torch.empty(len(position_P), dtype=torch.float32, device=self.device)
        if self.head is None:
            # The model does more than hidden states times head: take its own logits, a few rows at a time.
            width = ids_BT.shape[1]
            vocabulary = self.model.config.get_text_config().vocab_size
            n_rows = max(1, LOGITS_BYTES // (4 * vocabulary * width))
            for row in range(0, len(ids_BT), n_rows):
                mine = np.flatnonzero((position_P >= row * width) & (position_P < (row + n_rows) * width))
                logits_BTV = self.model(input_ids=ids_BT[row : row + n_rows], use_cache=False).logits
                at = torch.from_numpy(position_P[mine] - row * width).to(self.device)
                index = torch.from_numpy(mine).to(self.device)
                nll[index] = _token_nll(logits_BTV.flatten(0, 1)[at], target_P[index])
            return _to_numpy(nll)
        hidden_BTD = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        hidden_PD = hidden_BTD.flatten(0, 1)[torch.from_numpy(position_P).to(self.device)]
        n_chunk = max(1, LOGITS_BYTES // (4 * self.head.weight.shape[0]))
        for chunk in range(0, len(position_P), n_chunk):
            part = slice(chunk, chunk + n_chunk)
            nll[part] = _token_nll(self.head(hidden_PD[part]), target_P[part])
        return _to_numpy(nll)

    def _head_is_last(self) -> bool:
        """Whether logits are just the head of the last hidden states: seen on a probe, not believed.

        Some architectures scale or soft-cap logits after the head, or scale hidden states before it.
        """
        head = self.model.get_output_embeddings()
        body = self.model.base_model
        if head is None or body is self.model or not hasattr(head, "weight"):
            return False
        probe = torch.arange(min(16, head.weight.shape[0]), device=self.device)[None]
        whole = self.model(input_ids=probe, use_cache=False).logits
        outputs = body(input_ids=probe, use_cache=False)
        if not hasattr(outputs, "last_hidden_state"):
            return False
        split = head(outputs.last_hidden_state)
        if split.shape != whole.shape:
            return False
        gap = (split.float() - whole.float()).abs().max()
        # The same operations on the same shapes: equal to the last few bits or something else goes on.
        return bool(gap <= 4 * torch.finfo(whole.dtype).eps * whole.float().abs().max())


def _n_inputs(encoded: Encoded, row: int) -> int:
    """Returns how many tokens must be fed: all before the last supervised one."""
    supervised = encoded.row(row)[1]
    return len(supervised) - 1 - int(supervised[::-1].argmax())


def _token_nll(logits_PV: Any, target_P: Any) -> Any:
    # torch's own log-softmax, on purpose. On CPUs it adds up a large vocabulary in float32 and is off by about 1e-5
    # nats at 50,000 tokens and 3e-5 at 150,000 (AVX2; half of that with AVX-512); logsumexp is ten times closer to
    # the truth. But it is what ``model(input_ids, labels).loss`` does, whose losses ours must equal, and the error
    # is nearly the same for every example and state.
    return torch.nn.functional.cross_entropy(logits_PV.float(), target_P, reduction="none")


def _to_numpy(tensor: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.cpu().numpy()
    return array


@contextlib.contextmanager
def _as_in_eval(model: Any) -> Iterator[None]:
    """Puts every module into eval mode and back into its own, without gradients.

    `no_grad` and not `inference_mode`: a model that is being trained may cache tensors here (rotary tables)
    that a later backward pass needs, and inference tensors can't serve it.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
