"""`LossRecorder`: records every example's loss while a `transformers` Trainer trains.

At each scheduled step the trainer first saves its state and then the losses are scored under the very weights
in memory, so a run that dies while scoring resumes from that checkpoint and scores it again: a half-written
column belongs to the digest of its weights. Training is left as it would be without: modes, gradients and
random numbers are untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lossift.atomic import write_bytes
from lossift.errors import ArgumentError, ModelError, StoreError
from lossift.scoring.column import PART_ROWS, Recording
from lossift.scoring.encode import Encoding, Progress, Talk
from lossift.scoring.models import resolve_length, state_digest
from lossift.scoring.score import check_positive, open_pool
from lossift.scoring.templates import resolve_template
from lossift.store import LossStore

BASE, FINAL = "base", "final"


def spaced_steps(n_steps: int, n_states: int) -> list[int]:
    """Returns the steps of `n_states` states strictly inside a run of `n_steps`, evenly spaced.

    State i of m is at step ``floor(i * n_steps / (m + 1))``; in short runs, where steps coincide, fewer.

    Examples
    --------
    >>> spaced_steps(100, 3)
    [25, 50, 75]
    >>> spaced_steps(3, 12)
    [1, 2]
    """
    return sorted({i * n_steps // (n_states + 1) for i in range(1, n_states + 1)} - {0})


class LossRecorder(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """A callback that records all losses of a pool at base, at evenly spaced steps, and at the end.

    One process. The state is saved (``checkpoint-N``) at each of these steps, whatever `save_strategy` says.
    Resume an interrupted run with ``trainer.train(resume_from_checkpoint=True)``.

    Parameters
    ----------
    pool
        Whatever `lossift.read_pool` takes; it may be the training set or any other.
    out
        Folder of the store.
    states
        How many states between base and the end.
    steps
        The steps themselves instead.
    tokenizer
        The trainer's ``processing_class`` unless given.
    template, max_length, truncated, view, token_budget, part_rows, mapping, split, limit, seed, talk, progress
        As in `lossift.scoring.score`.

    Examples
    --------
    >>> from lossift.scoring import LossRecorder
    >>> trainer.add_callback(LossRecorder("data.jsonl", "losses"))  # doctest: +SKIP
    """

    def __init__(
        self,
        pool: Any,
        out: str | Path,
        *,
        states: int = 12,
        steps: Sequence[int] | None = None,
        tokenizer: Any = None,
        template: str | Path = "auto",
        max_length: int | None = None,
        truncated: str = "drop",
        view: str | None = None,
        token_budget: int | None = None,
        part_rows: int = PART_ROWS,
        mapping: dict[str, str] | str | None = None,
        split: str | None = None,
        limit: int | None = None,
        seed: int = 0,
        talk: Talk | None = None,
        progress: Progress | None = None,
    ) -> None:
        check_positive(states=states, token_budget=token_budget, part_rows=part_rows, max_length=max_length)
        self._pool = open_pool(pool, mapping=mapping, split=split, limit=limit, seed=seed, talk=talk)
        self._out = out
        self._n_states = states
        self._steps = steps
        self._tokenizer = tokenizer
        self._encoding_options = (template, max_length, truncated)
        self._options: dict[str, Any] = {
            "view": view,
            "token_budget": token_budget,
            "part_rows": part_rows,
            "talk": talk,
            "progress": progress,
        }
        self._recording: Recording | None = None
        self._names: dict[int, str] = {}

    @classmethod
    def of(cls, recording: Recording, steps: Sequence[int]) -> LossRecorder:
        """Returns a recorder over a recording that is prepared already."""
        recorder = cls.__new__(cls)
        recorder._recording, recorder._steps, recorder._names = recording, steps, {}
        return recorder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Prepares the store; scores the state that training starts or resumes at, when it is a scheduled one."""
        if args.world_size > 1:
            raise ArgumentError(f"LossRecorder: found {args.world_size} processes, allowed is one")
        model = kwargs["model"]
        if self._recording is None:
            self._recording = self._prepare(model, self._tokenizer or kwargs.get("processing_class"))
        steps = spaced_steps(state.max_steps, self._n_states) if self._steps is None else self._steps
        self._names = declare_states(self._recording.store, steps, state.max_steps)
        weights = state_digest(model)
        if state.global_step == 0 and (sealed := self._recording.sealed_meta(BASE)) and sealed["weights"] != weights:
            raise StoreError(
                f"{self._recording.store.path}: holds a run from other weights: "
                f"there {sealed['weights']}, given {weights}",
                hint="give each run its own out",
            )
        note = _note(args, state)
        if note.exists() and note.read_text() != weights:
            raise ModelError(
                f"{note.parent}: resuming has not given the model the weights that were saved there: "
                f"saved {note.read_text()}, found {weights}",
                hint="load the model from that folder before giving it to the trainer",
            )
        self._record(state.global_step, model, weights)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Asks the trainer to save a scheduled state before it is scored."""
        assert self._recording is not None
        name = self._names.get(state.global_step)
        if name and not self._recording.is_sealed(name):
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Scores the state that has just been saved, when it is a scheduled one."""
        if state.global_step in self._names:
            model = kwargs["model"]
            weights = state_digest(model)
            write_bytes(_note(args, state), weights.encode())
            self._record(state.global_step, model, weights)

    def _record(self, step: int, model: Any, weights: str) -> None:
        assert self._recording is not None
        name = self._names.get(step)
        if name and not self._recording.is_sealed(name):
            self._recording.record(name, model, weights)

    def _prepare(self, model: Any, tokenizer: Any) -> Recording:
        if tokenizer is None:
            raise ArgumentError(
                "LossRecorder: the trainer has no processing_class, so the tokenizer is unknown",
                hint="LossRecorder(..., tokenizer=tokenizer)",
            )
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor holds one
        template, max_length, truncated = self._encoding_options
        length = resolve_length(max_length, model.config, tokenizer, type(model).__name__)
        encoding = Encoding(tokenizer, resolve_template(template, tokenizer), length, truncated)
        return Recording(LossStore.create(self._out, self._pool), self._pool, encoding, **self._options)


def _note(args: Any, state: Any) -> Path:
    """Returns where the digest of a saved state's weights stands, to see whether resuming brings them back.

    transformers 5 loads a checkpoint by the names in its file; for some architectures (GPT-NeoX) these aren't the
    model's, and the head silently stays what it was.
    """
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "weights.blake2b"


def declare_states(store: LossStore, steps: Sequence[int], n_steps: int) -> dict[int, str]:
    """Returns the names of the states of a run by step, declared in the store with the roles of both ends."""
    names = {0: BASE} | {step: f"step-{step}" for step in steps if 0 < step < n_steps} | {n_steps: FINAL}
    for step, name in names.items():
        role = {"role": name} if name in (BASE, FINAL) else {}
        store.add_state(name, step=step, meta={"trace": True} | role)
    return names
