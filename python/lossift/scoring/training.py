"""Training a proxy with transformers' `Trainer`: data, batches, checkpoints, manners.

Enter: a model, the encoded pool, settings. Leaves: nothing but what the callbacks recorded. The trainer's own talk,
logs and progress bars are off, and the caller's random numbers are put back.

The choice worth knowing: the order of an epoch is decided by keyed hashes of (seed, example id), so the same pool
in another row order trains the same. Within the examples of one optimiser step, micro-batches are cut by
length: the step's gradient is the same sum, with far fewer pads. The loss is the mean over the step's tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lossift import _native
from lossift.reasons import Reason
from lossift.scoring.saving import disk_errors_told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.scoring.encode import Encoded, Progress

_IGNORED = -100
_NOT_MODEL = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "training_args.bin", "weights.blake2b")


@dataclass(frozen=True)
class Settings:
    """What decides the training of a proxy, and nothing else."""

    epochs: float
    learning_rate: float
    batch_size: int
    warmup: float
    weight_decay: float
    seed: int


class Examples(Dataset):  # type: ignore[misc]
    """The valid examples of a pool, by their rank among the valid."""

    def __init__(self, encoded: Encoded) -> None:
        self.encoded = encoded
        self.rows = np.flatnonzero(encoded.why_invalid == Reason.VALID)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        return self.encoded.row(int(self.rows[index]))


def collate(examples: list[tuple[NDArray[np.int32], NDArray[np.bool_]]]) -> dict[str, Any]:
    """Returns input_ids and labels, int64[B, T]; padded on the right, where no real token looks."""
    width = max(len(tokens) for tokens, _ in examples)
    ids_BT = np.zeros((len(examples), width), dtype=np.int64)
    labels_BT = np.full((len(examples), width), _IGNORED, dtype=np.int64)
    for i, (tokens, supervised) in enumerate(examples):
        ids_BT[i, : len(tokens)] = tokens
        labels_BT[i, : len(tokens)][supervised] = tokens[supervised]
    return {"input_ids": torch.from_numpy(ids_BT), "labels": torch.from_numpy(labels_BT)}


class EpochBatches(BatchSampler):  # type: ignore[misc]
    """The micro-batches of one epoch, in steps of `batch_size` examples.

    Parameters
    ----------
    ids, lengths
        uint64[n] and int[n] of the examples.
    batch_size, micro_batch_size
        Examples per optimiser step and per forward pass; the second divides the first.
    """

    def __init__(
        self,
        ids: NDArray[np.uint64],
        lengths: NDArray[np.integer[Any]],
        *,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
    ) -> None:
        self.ids = np.ascontiguousarray(ids)
        self.lengths = lengths
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.ids), self.batch_size)
        return whole * (self.batch_size // self.micro_batch_size) + -(-rest // self.micro_batch_size)

    @property
    def n_steps(self) -> int:
        """Optimiser steps of one epoch."""
        return -(-len(self.ids) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        keys = _native.keys(self.ids, self.seed, f"epoch {self.epoch}")
        order = np.argsort(keys)
        for start in range(0, len(order), self.batch_size):
            step = order[start : start + self.batch_size]
            step = step[np.argsort(-self.lengths[step], kind="stable")]
            for micro in range(0, len(step), self.micro_batch_size):
                yield step[micro : micro + self.micro_batch_size].tolist()


class ProxyTrainer(Trainer):  # type: ignore[misc]
    """A `Trainer` that takes its batches as they are planned."""

    def __init__(self, batches: EpochBatches, **options: Any) -> None:
        super().__init__(**options, data_collator=collate)
        self.batches = batches
        self.remove_callback(PrinterCallback)

    def _load_from_checkpoint(self, *_: Any) -> None:
        """Loads nothing: the model came in with the checkpoint's weights.

        transformers 5 loads them here by the names in the file, which for some architectures (GPT-NeoX, so Pythia)
        are not the model's: the head would silently keep the weights it had before training.
        """

    def get_train_dataloader(self) -> Any:
        """Returns the planned batches; resuming skips the first of them."""
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=collate)


class Housekeeping(TrainerCallback):  # type: ignore[misc]
    """Tells the batches which epoch it is, reports progress, and removes checkpoints that a newer one replaces.

    It must come after the recorder, which still needs a state that isn't scored.
    """

    def __init__(self, batches: EpochBatches, folder: Path, progress: Progress | None) -> None:
        self.batches, self.folder, self.progress = batches, folder, progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Sets the epoch whose order is drawn."""
        self.batches.epoch = state.global_step // self.batches.n_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Reports progress, in tokens."""
        if self.progress:
            total = int(self.batches.lengths.sum() * args.num_train_epochs)
            self.progress("training", total * state.global_step // state.max_steps, total)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Makes the new checkpoint durable, then removes the others."""
        newest = self.folder / f"checkpoint-{state.global_step}"
        for path in [*newest.rglob("*"), newest, self.folder]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        for path in self.folder.glob("checkpoint-*"):
            if path != newest:
                shutil.rmtree(path)


def train(
    model: Any,
    tokenizer: Any,
    examples: Examples,
    batches: EpochBatches,
    settings: Settings,
    folder: Path,
    *,
    checkpoint: Path | None,
    callback: TrainerCallback,
    progress: Progress | None,
) -> None:
    """Trains `model` in place.

    Parameters
    ----------
    model
        With the weights to begin with: those of `checkpoint`, when there is one.
    folder
        Where checkpoints go.
    callback
        Is asked at every step; it decides what is saved.
    """
    device = next(model.parameters()).device
    n_steps = count_steps(len(examples), settings)
    with _random_numbers_kept():
        arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=batches.micro_batch_size,
            gradient_accumulation_steps=batches.batch_size // batches.micro_batch_size,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=int(np.ceil(settings.warmup * n_steps)),
            weight_decay=settings.weight_decay,
            optim="adamw_torch",
            seed=settings.seed % 2**32,  # dropout and the like; NumPy takes no more, the order of examples does
            bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            log_level="error",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # else the trainer spreads over all of them, and the batches are no longer ours
        trainer = ProxyTrainer(
            batches,
            model=model,
            args=arguments,
            train_dataset=examples,
            processing_class=tokenizer,
            callbacks=[callback, Housekeeping(batches, folder, progress)],
        )
        with disk_errors_told(folder):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def plan_epochs(examples: Examples, ids: NDArray[np.uint64], settings: Settings, device: str) -> EpochBatches:
    """Returns the batches of a training run; micro-batches are what a small machine holds at 512 tokens."""
    most = 16 if device.startswith("cuda") else 8
    micro = max(size for size in range(1, min(most, settings.batch_size) + 1) if settings.batch_size % size == 0)
    return EpochBatches(
        ids[examples.rows],
        examples.encoded.n_tokens[examples.rows],
        batch_size=settings.batch_size,
        micro_batch_size=micro,
        seed=settings.seed,
    )


def count_steps(n_examples: int, settings: Settings) -> int:
    """Returns the optimiser steps of a whole run, as the trainer counts them."""
    return int(np.ceil(settings.epochs * -(-n_examples // settings.batch_size)))


# --------------------------------------------------------------- checkpoints


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint in `folder`; ones that were cut off while being written are removed."""
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            whole[json.loads((path / "trainer_state.json").read_bytes())["global_step"]] = path  # written last
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path)
    return whole[max(whole)] if whole else None


def keep_model(checkpoint: Path, target: Path) -> None:
    """Copies the model and tokenizer of a checkpoint to `target`, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors_told(target):
        temporary.mkdir(parents=True)
        for path in checkpoint.iterdir():
            if path.name not in _NOT_MODEL and not path.name.startswith("rng_state"):
                shutil.copy2(path, temporary)
        temporary.rename(target)


@contextlib.contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """The trainer seeds everything there is; here it is put back."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
