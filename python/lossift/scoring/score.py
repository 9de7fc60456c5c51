"""`score`: the losses of a pool under models that exist.

The choice worth knowing: everything that can be refused is refused before a model is loaded, and a state whose
column is sealed is recognised by the digest of its weight files, so rerunning a finished job loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossift.errors import ArgumentError
from lossift.pool import read_pool
from lossift.scoring.column import PART_ROWS, Recording
from lossift.scoring.encode import Encoding, Progress, Talk, tokenizer_digest
from lossift.scoring.models import (
    Source,
    files_digest,
    find_states,
    load_config,
    load_model,
    load_tokenizer,
    manners,
    resolve_device,
    resolve_dtype,
    resolve_length,
)
from lossift.scoring.templates import resolve_template
from lossift.store import LossStore

if TYPE_CHECKING:
    from lossift.pool import Pool


def score(
    pool: Any,
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    template: str | Path = "auto",
    max_length: int | None = None,
    truncated: str = "drop",
    view: str | None = None,
    token_budget: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    part_rows: int = PART_ROWS,
    mapping: dict[str, str] | str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    n_threads: int | None = None,
    talk: Talk | None = None,
    progress: Progress | None = None,
) -> LossStore:
    """Returns the store at `out` with the losses of every example of `pool` under each of `models`.

    Parts are written as they finish; the same call again goes on where the last one stopped. Calls with more
    models add states to the same store.

    Parameters
    ----------
    pool
        Whatever `lossift.read_pool` takes.
    models
        In training order: model folders, folders or globs of ``checkpoint-*``, ``.gguf`` files, hub ids;
        ``name=path`` names the state.
    out
        Folder of the store: a new one, or one that holds losses of the same pool.
    template
        ``auto`` (the tokenizer's chat template, else ``plain``), ``chat``, ``plain``, ``alpaca``, a Jinja template
        or the path of one.
    max_length
        Tokens per example, at most the models' context; the smallest of them unless given.
    truncated
        What becomes of an example whose response doesn't fit: ``drop`` makes it invalid, ``keep`` cuts it.
    view
        Name of the view; the template's unless given.
    token_budget
        Padded tokens per batch; larger is faster up to a point and takes more memory.
    dtype
        Of the weights: ``auto`` (float32 on a CPU, the model's own elsewhere), ``float32``, ``float16``, ``bfloat16``.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    part_rows
        Examples per part: what an interruption may cost.
    mapping, split, limit, seed
        How the pool is read, see `lossift.read_pool`.
    trust_remote_code
        Run code that comes with a model.
    n_threads
        CPU threads; ``LOSSIFT_NUM_THREADS``, else what the machine grants, unless given.
    talk
        Called with lines for people.
    progress
        Called with what is done, how much of it, and of how much, in tokens.

    Raises
    ------
    ArgumentError
        When an argument is outside what is allowed, or the models have different tokenizers.
    ModelError
        When a path is no model, or its tokenizer can't be used.
    StoreError
        When `out` holds another pool, or other weights under one of the names.

    Examples
    --------
    >>> from lossift.scoring import score
    >>> store = score("data.jsonl", ["base=SmolLM2-135M", "run/checkpoint-500"], "losses")  # doctest: +SKIP
    """
    check_positive(token_budget=token_budget, part_rows=part_rows, max_length=max_length)
    device = resolve_device(device)
    with manners(n_threads):
        sources = find_states(models)
        rows = open_pool(pool, mapping=mapping, split=split, limit=limit, seed=seed, talk=talk)
        configs = [load_config(source, trust_remote_code=trust_remote_code) for source in sources]
        dtypes = [resolve_dtype(dtype, config, device) for config in configs]
        tokenizer = _common_tokenizer(sources, trust_remote_code=trust_remote_code)
        length = min(resolve_length(max_length, c, tokenizer, s.name) for c, s in zip(configs, sources, strict=True))
        encoding = Encoding(tokenizer, resolve_template(template, tokenizer), length, truncated)
        recording = Recording(
            LossStore.create(out, rows),
            rows,
            encoding,
            view=view,
            token_budget=token_budget,
            part_rows=part_rows,
            talk=talk,
            progress=progress,
        )
        for source in sources:
            recording.store.add_state(source.name, step=source.step)
        for source, own_dtype in zip(sources, dtypes, strict=True):
            weights = files_digest(source)
            sealed = recording.sealed_meta(source.name)
            if sealed and (sealed["weights"], sealed["dtype"]) == (weights, own_dtype):
                recording.talk(f"{source.name}: scored already")
                continue
            model = load_model(source, dtype=own_dtype, device=device, trust_remote_code=trust_remote_code)
            recording.record(source.name, model, weights)
            del model  # before the next one is loaded
    return recording.store


def open_pool(
    pool: Any,
    *,
    mapping: dict[str, str] | str | None,
    split: str | None,
    limit: int | None,
    seed: int,
    talk: Talk | None,
) -> Pool:
    """Returns the pool, and says how its rows are read."""
    rows = read_pool(pool, mapping=mapping, split=split, limit=limit, seed=seed)
    if talk and rows is not pool:
        talk(f"{len(rows):,} examples, {rows.mapping}")
    return rows


def check_positive(**arguments: int | None) -> None:
    """Refuses whole numbers below 1, by the names of their arguments; None is "not given"."""
    for name, value in arguments.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name}: found {value}, allowed are whole numbers from 1")


def _common_tokenizer(sources: Sequence[Source], *, trust_remote_code: bool) -> Any:
    """Returns the tokenizer that all states share: losses in different tokens can't be compared."""
    first, digest = None, ""
    for source in sources:
        tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
        if not tokenizer.is_fast:
            return tokenizer  # refused with its reason where it is used
        if first is None:
            first, digest = tokenizer, tokenizer_digest(tokenizer)
        elif (found := tokenizer_digest(tokenizer)) != digest:
            raise ArgumentError(
                f"models: {sources[0].name} and {source.name} have different tokenizers (digests {digest} and {found})",
                hint="score them in two calls, each with its own view= name",
            )
    return first
