"""`trace`: fine-tunes a small proxy and records every example's loss as it goes.

The folder it writes is a loss store, and beside its files ``training/`` (the newest checkpoint, while the run
goes on) and ``model/`` (the trained proxy, at the end). A state is saved, then scored, then its column is sealed; the
same call after an interruption resumes at the newest checkpoint, and after the end returns at once.
Disk while it runs: two checkpoints, each three times the weights.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from lossift.errors import ArgumentError, PoolError
from lossift.reasons import Reason
from lossift.scoring.column import PART_ROWS, Recording
from lossift.scoring.encode import Encoding, Progress, Talk
from lossift.scoring.models import (
    Source,
    files_digest,
    find_model,
    known_context,
    load_config,
    load_model,
    load_tokenizer,
    manners,
    resolve_device,
    resolve_length,
    state_digest,
)
from lossift.scoring.recipes import RECIPES, Recipe
from lossift.scoring.record import FINAL, LossRecorder, declare_states
from lossift.scoring.score import check_positive, open_pool
from lossift.scoring.templates import resolve_template
from lossift.scoring.training import (
    Examples,
    Settings,
    count_steps,
    keep_model,
    newest_checkpoint,
    plan_epochs,
    train,
)
from lossift.store import LossStore

if TYPE_CHECKING:
    from lossift.pool import Pool


def trace(
    pool: Any,
    model: str | Path,
    out: str | Path,
    *,
    recipe: str = "default",
    epochs: float | None = None,
    states: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    keep_proxy: bool = True,
    template: str | Path | None = None,
    max_length: int | None = None,
    truncated: str = "drop",
    token_budget: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    part_rows: int = PART_ROWS,
    mapping: dict[str, str] | str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    trust_remote_code: bool = False,
    n_threads: int | None = None,
    talk: Talk | None = None,
    progress: Progress | None = None,
) -> LossStore:
    """Returns the store at `out` with the losses of every example at states of a proxy's training.

    The proxy is trained on the valid examples of the pool (all weights, in float32; under bfloat16 autocast on a
    GPU that has it) and all examples are scored at `base`, at `states` steps between, and at `final`.

    Parameters
    ----------
    pool
        Whatever `lossift.read_pool` takes.
    model
        The proxy before training: a model folder, a ``.gguf`` file or a hub id.
    out
        Folder of the store.
    recipe
        ``default`` or ``s2l``, see `lossift.scoring.recipes`; the four options below it override its parts.
    epochs
        Passes over the pool.
    states
        How many states between base and final, evenly spaced.
    learning_rate
        The peak.
    batch_size
        Examples per optimiser step.
    keep_proxy
        Whether the trained proxy stays, in ``out/model``.
    seed
        Decides which examples `limit` takes and the order of training; unless given 0 and the recipe's. From 0 to
        2**64 - 1; what torch draws (dropout) is decided by the seed modulo 2**32.
    template, max_length, truncated, token_budget, device, part_rows, mapping, split, limit
        As in `score`; the recipe decides template and length unless given, the length as far as the model takes it.
    dtype
        ``auto`` or ``float32``: the proxy is trained and scored in float32.
    trust_remote_code, n_threads, talk, progress
        As in `score`.

    Raises
    ------
    ArgumentError
        When an argument is outside what is allowed, or isn't what the run in `out` was begun with.
    ModelError
        When `model` is no model, or its tokenizer can't be used.
    DiskError
        When the disk is full; the same call goes on once there is space.

    Examples
    --------
    >>> from lossift.scoring import trace
    >>> store = trace("data.jsonl", "SmolLM2-135M", "losses")  # doctest: +SKIP
    """
    check_positive(
        states=states, batch_size=batch_size, token_budget=token_budget, part_rows=part_rows, max_length=max_length
    )
    plan = _recipe(recipe, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    if dtype not in ("auto", "float32"):
        raise ArgumentError(f"dtype: found {dtype!r}, a proxy is trained in float32")
    device = resolve_device(device)
    out = Path(out)
    with manners(n_threads):
        source = find_model(model)
        rows = open_pool(pool, mapping=mapping, split=split, limit=limit, seed=seed or 0, talk=talk)
        config = load_config(source, trust_remote_code=trust_remote_code)
        tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
        if max_length is None and plan.max_length is not None:
            max_length = min(plan.max_length, known_context(config) or plan.max_length)
            if max_length < plan.max_length and talk:
                talk(f"max_length: {max_length:,}, all that {source.name} takes; the recipe's is {plan.max_length:,}")
        length = resolve_length(max_length, config, tokenizer, source.name)
        encoding = Encoding(tokenizer, resolve_template(template or plan.template, tokenizer), length, truncated)
        recording = Recording(
            LossStore.create(out, rows),
            rows,
            encoding,
            token_budget=token_budget,
            part_rows=part_rows,
            talk=talk,
            progress=progress,
        )
        n_valid = int((recording.store.views[recording.view].why_invalid == Reason.VALID).sum())
        if not n_valid:
            raise PoolError("pool: none of its examples is valid, so there is nothing to train on")
        settings = Settings(
            epochs=plan.epochs,
            learning_rate=plan.learning_rate_for(_count_parameters(config)),
            batch_size=plan.batch_size,
            warmup=plan.warmup,
            weight_decay=plan.weight_decay,
            seed=plan.seed,
        )
        n_steps = count_steps(n_valid, settings)
        steps = plan.steps(n_steps, states)
        _begin(recording, recipe, source, settings, steps, n_steps)
        names = declare_states(recording.store, steps, n_steps)
        if not all(recording.is_sealed(name) for name in names.values()):
            loader = {"dtype": "float32", "device": device, "trust_remote_code": trust_remote_code}
            _run(recording, rows, source, tokenizer, settings, steps, n_steps, out / "training", loader)
        else:
            recording.talk(f"{out}: all {len(names)} states are recorded already")
        _tidy(out, keep_proxy=keep_proxy)
    return recording.store


def _run(
    recording: Recording,
    pool: Pool,
    source: Source,
    tokenizer: Any,
    settings: Settings,
    steps: list[int],
    n_steps: int,
    folder: Path,
    loader: dict[str, Any],
) -> None:
    """Trains and records what is missing, from the newest checkpoint."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint:
        source = Source(source.name, None, checkpoint)
    model = load_model(source, **loader)
    if checkpoint and checkpoint.name == f"checkpoint-{n_steps}":
        # Nothing is left to train: the run was cut off while the final state was being scored.
        recording.record(FINAL, model, state_digest(model))
        return
    examples = Examples(recording.encoded)
    batches = plan_epochs(examples, pool.ids, settings, loader["device"])
    recording.talk(
        f"training {source.name} on {len(examples):,} examples: {n_steps:,} steps of {settings.batch_size}, learning "
        f"rate {settings.learning_rate:g}; recording base, {len(steps)} states and final"
        + (f"; resuming at {checkpoint.name}" if checkpoint else "")
    )
    recorder = LossRecorder.of(recording, steps)
    train(
        model,
        tokenizer,
        examples,
        batches,
        settings,
        folder,
        checkpoint=checkpoint,
        callback=recorder,
        progress=recording.progress,
    )


def _recipe(name: str, **overrides: float | int | None) -> Recipe:
    """Returns the recipe with what was given in place of its own."""
    if name not in RECIPES:
        raise ArgumentError(f"recipe: found {name!r}, allowed are {', '.join(RECIPES)}")
    given: dict[str, Any] = {key: value for key, value in overrides.items() if value is not None}
    if not 0 <= given.get("seed", 0) < 1 << 64:
        raise ArgumentError(f"seed: found {given['seed']}, allowed are whole numbers from 0 to 2**64 - 1")
    for key in ("epochs", "learning_rate"):
        if key in given and not 0 < given[key] < np.inf:
            raise ArgumentError(f"{key}: found {given[key]}, allowed are numbers above 0")
    return dataclasses.replace(RECIPES[name], **given)


def _begin(
    recording: Recording, recipe: str, source: Source, settings: Settings, steps: list[int], n_steps: int
) -> None:
    """Notes what the run is, or checks that the one begun here is the same."""
    now = dataclasses.asdict(settings) | {
        "model": source.name,
        "weights": files_digest(source),
        "view": recording.view,
        "states_at": steps,
        "n_steps": n_steps,
    }
    begun = recording.store.info.get("trace")
    if begun is None:
        recording.store.update_info(trace=now | {"recipe": recipe})
        return
    # The name of a recipe or folder doesn't matter, what they stand for does.
    differing = [key for key in now if key != "model" and begun.get(key) != now[key]]
    if differing:
        there = ", ".join(f"{key}={begun.get(key)!r}" for key in differing)
        given = ", ".join(f"{key}={now[key]!r}" for key in differing)
        raise ArgumentError(
            f"{recording.store.path}: holds a run begun with {there}; given: {given}",
            hint="give the same options to go on with it, or another out",
        )


def _tidy(out: Path, *, keep_proxy: bool) -> None:
    """Keeps the trained proxy when asked to, and removes the checkpoints."""
    training = out / "training"
    checkpoint = newest_checkpoint(training) if training.is_dir() else None
    if checkpoint and keep_proxy and not (out / "model").exists():
        keep_model(checkpoint, out / "model")
    shutil.rmtree(training, ignore_errors=True)


def _count_parameters(config: Any) -> int:
    """Returns the number of weights, from a model without memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())
