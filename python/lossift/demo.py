"""The whole journey on a pool in which every example's kind is known: what does each method keep?

A pool of 2,004 examples in twelve small skills is generated from a seed. In four skills the answer never changes
(learnt at once), in five it follows from the question (learnable), in three it is random (unlearnable). A tiny
Llama is trained on it from nothing, its losses are recorded, and each method chooses from the same losses.
"""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from lossift.atomic import write_bytes
from lossift.select import select
from lossift.selection import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_SKILL = 167
BUDGET = "11%"
METHODS = ("s2l", "learnability", "delta", "random")
KINDS = ("learnt at once", "learnable", "unlearnable")

_NAMES = ("Ada", "Ben", "Cem", "Dia", "Eli", "Fay", "Gus", "Hoa", "Ian", "Jun", "Kai", "Lea")
_PLACES = ("Orlen", "Vask", "Timber", "Quill", "Sand", "Moss", "Pike", "Rune", "Harrow", "Fenn")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OPPOSITES = {
    "hot": "cold",
    "up": "down",
    "wet": "dry",
    "fast": "slow",
    "old": "new",
    "big": "small",
    "loud": "quiet",
}
_CAPITALS = dict(
    zip(
        _PLACES,
        ("Mira", "Tolle", "Asht", "Belm", "Corv", "Dune", "Eskar", "Folk", "Grel", "Hyde"),
        strict=True,
    )
)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# kind, skill -> one (question, answer)
_Maker = Callable[[np.random.Generator], tuple[str, str]]
_SKILLS: dict[str, tuple[str, _Maker]] = {
    "greeting": ("learnt at once", lambda r: (f"Greet {_pick(r, _NAMES)}.", "Good morning and welcome!")),
    "sky": (
        "learnt at once",
        lambda r: (f"Which colour is the sky over {_pick(r, _PLACES)}?", "It is blue."),
    ),
    "week": (
        "learnt at once",
        lambda r: (f"{_pick(r, _NAMES)} asks: how long is a week?", "A week has seven days."),
    ),
    "farewell": (
        "learnt at once",
        lambda r: (f"Close the letter to {_pick(r, _NAMES)}.", "With kind regards,"),
    ),
    "capital": ("learnable", lambda r: _look_up(r, "What is the capital of {}?", _CAPITALS)),
    "opposite": ("learnable", lambda r: _look_up(r, "What is the opposite of {}?", _OPPOSITES)),
    "spelling": (
        "learnable",
        lambda r: _look_up(r, "Write {} as a word.", {str(i): w for i, w in enumerate(_NUMBERS)}),
    ),
    "next letter": (
        "learnable",
        lambda r: _look_up(r, "Which letter follows {}?", dict(pairwise(_LETTERS))),
    ),
    "parity": ("learnable", lambda r: _parity(int(r.integers(10, 1000)))),
    "lottery": (
        "unlearnable",
        lambda r: (f"Which number won draw {r.integers(1000, 9999)}?", str(r.integers(10000, 99999))),
    ),
    "password": (
        "unlearnable",
        lambda r: (
            f"What is the password of {_pick(r, _NAMES)}{r.integers(100)}?",
            "".join(r.choice(list(_LETTERS), 8)),
        ),
    ),
    "coin": (
        "unlearnable",
        lambda r: (f"How did toss {r.integers(1000, 9999)} fall?", _pick(r, ("heads", "tails"))),
    ),
}


def run(
    out: Path,
    *,
    seed: int = 0,
    n_threads: int | None = None,
    talk: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> str:
    """Traces the demo model, selects by each method and returns the closing tables as text.

    Parameters
    ----------
    out
        Folder for everything that is made; a second run goes on from what is there.
    seed
        Decides the pool, the model, the training and the draws.
    """
    from lossift.scoring import tiny_model, trace

    started = time.monotonic()
    rows = list(generate(seed))
    pool = out / "pool.jsonl"
    write_bytes_once(pool, "".join(json.dumps(row) + "\n" for row in rows).encode())
    talk(f"1. a pool of {len(rows):,} examples in {len(_SKILLS)} skills: {pool}")
    texts = [f"{row['prompt']}\n{row['response']}" for row in rows]
    model = out / "tiny-llama"
    if not (model / "config.json").exists():
        tiny_model(texts, model, vocab_size=512, hidden_size=128, n_layers=3, n_heads=4, max_length=128, seed=seed)
    talk(f"2. a tiny Llama that knows nothing yet: {model}")
    talk("3. training it, and recording every example's loss at 14 states on the way")
    store = trace(
        pool,
        model,
        out / "losses",
        epochs=6,
        states=12,
        learning_rate=2e-3,
        batch_size=32,
        seed=seed,
        n_threads=n_threads,
        talk=talk,
        progress=progress,
    )
    talk(f"4. choosing {BUDGET} by each method, from the same losses")
    chosen = {method: select(store, method, budget=BUDGET, seed=seed, n_threads=n_threads) for method in METHODS}
    for method, selection in chosen.items():
        selection.write(out / f"{method}.jsonl")
    kinds = np.array([row["kind"] for row in rows])
    return _closing(out, kinds, chosen, time.monotonic() - started)


def generate(seed: int) -> Iterator[dict[str, str]]:
    """Yields the rows of the pool, in a seeded order: prompt, response, skill and kind."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.repeat(np.arange(len(_SKILLS)), PER_SKILL))
    skills = list(_SKILLS)
    for i in order:
        kind, make = _SKILLS[skills[i]]
        prompt, response = make(generator)
        yield {"prompt": prompt, "response": response, "skill": skills[i], "kind": kind}


def write_bytes_once(path: Path, content: bytes) -> None:
    """Writes a file unless it is there with this content, so that its modification time stays."""
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)


def _pick(generator: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(generator.integers(len(words)))]


def _look_up(generator: np.random.Generator, question: str, answers: dict[str, str]) -> tuple[str, str]:
    word = _pick(generator, tuple(answers))
    return question.format(word), answers[word]


def _parity(number: int) -> tuple[str, str]:
    return f"Is {number} even or odd?", "even" if number % 2 == 0 else "odd"


# ------------------------------------------------------------------ closing


def _closing(out: Path, kinds: NDArray[np.str_], chosen: dict[str, Selection], seconds: float) -> str:
    kept = _table(f"What each method kept: {BUDGET} of {len(kinds):,} examples", "kind", "in the pool", *chosen)
    for kind in KINDS:
        counts = [int((kinds[selection.rows] == kind).sum()) for selection in chosen.values()]
        kept.add_row(kind, f"{int((kinds == kind).sum()):,}", *(f"{count:,}" for count in counts))
    kept.add_row("all", f"{len(kinds):,}", *(f"{len(selection):,}" for selection in chosen.values()))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(kept, _cluster_table(kinds, chosen["s2l"]))
    tables = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    folder = shlex.quote(str(out))
    return f"""{tables}
learnability and delta are a proxy's here: its losses, not those of a model that
you would train on the subset.

Made in {seconds:.0f} s, under {out}/
  pool.jsonl     the pool; every row says its skill and kind
  losses/        the loss store: 14 columns, readable with safetensors alone
  s2l.jsonl ...  the subsets, and beside each the manifest that repeats it

Choose again from the same losses, in a second:
  lossift select {folder}/losses --budget 5% --by skill --out few.jsonl

The same on your own data:
  lossift trace data.jsonl --model SMALL_MODEL --out losses
  lossift select losses --method s2l --budget 11% --out subset.jsonl
  lossift select losses --method learnability --budget 6% --out top.jsonl"""


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    return table


def _cluster_table(kinds: NDArray[np.str_], selection: Selection) -> Table:
    """The clusters of s2l gathered into bands of size: their quotas, and which kinds they hold."""
    title = "How s2l shared it out: clusters of trajectories, smallest first"
    table = _table(title, "size", "clusters", "examples", "quota", "drawn", "at once", *KINDS[1:])
    assert selection.clusters is not None
    bands = ((1, 5), (6, 10), (11, 20), (21, 50), (51, 10**9))
    for low, high in bands:
        cells = [cell for cell in selection.quotas if low <= cell.size <= high]
        if not cells:
            continue
        members = np.isin(selection.clusters, np.array([cell.cluster for cell in cells], dtype=np.int32))
        quotas = [cell.quota for cell in cells]
        each = f"{min(quotas)}" if min(quotas) == max(quotas) else f"{min(quotas)} to {max(quotas)}"
        table.add_row(
            f"{low} to {high}" if high < 10**9 else f"over {low - 1}",
            str(len(cells)),
            f"{int(members.sum()):,}",
            each,
            str(sum(cell.drawn for cell in cells)),
            *(f"{int((kinds[members] == kind).sum()):,}" for kind in KINDS),
        )
    return table
