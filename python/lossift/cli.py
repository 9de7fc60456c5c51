"""The command line: options in, one call of the library, talk out.

stdout carries data, stderr carries talk and progress. Exit code 0 is done, 2 wrong usage or input, 130
interrupted. torch is loaded by the commands that score, and by no other.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from lossift.errors import LossiftError
from lossift.pool import container_of
from lossift.progress import Bars
from lossift.version import __version__

EXIT_WRONG = 2
EXIT_INTERRUPTED = 130

app = App(
    name="lossift",
    help="Choose the part of your fine-tuning data worth training on, from nothing but losses.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)

# The library's arguments that are options here.
_ARGUMENTS = frozenset(
    (
        *("budget", "by", "states", "base", "ref", "method", "preset", "shape", "n_clusters", "n_iterations", "seed"),
        *("init", "fit", "n_restarts", "tolerance"),
        *("min_score", "n_threads", "out", "template", "view", "max_length", "truncated", "mapping", "split", "limit"),
        *("token_budget", "dtype", "device", "model", "models", "recipe", "epochs", "learning_rate", "batch_size"),
    )
)

talk = Console(stderr=True, highlight=False, soft_wrap=True)

Pool = Annotated[list[str], Parameter(negative="")]
Models = Annotated[list[str], Parameter(name=["--model", "-m"], consume_multiple=True, negative="")]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Threads = Annotated[int | None, Parameter(name="--threads")]


@Parameter(name="*")
@dataclass(kw_only=True)
class ScoringOptions:
    """How a pool is read, encoded and run through a model: the same for every command that scores."""

    template: str | None = None
    "auto (the tokenizer's chat template, else plain), chat, plain, alpaca, or a Jinja file."
    max_length: int | None = None
    "Tokens per example; the model's context unless given."
    truncated: Literal["drop", "keep"] = "drop"
    "An example whose response is cut is invalid (drop), or scored on what is left (keep)."
    map: Annotated[str | None, Parameter(name="--map")] = None
    "Which fields are what: prompt=question,response=answer."
    split: str | None = None
    "Split of a hub data set."
    limit: int | None = None
    "Use only so many examples, a seeded part by id."
    seed: int | None = None
    "Decides what --limit takes, and the order of training."
    token_budget: int | None = None
    "Padded tokens per forward batch."
    dtype: str = "auto"
    "auto is float32 on a CPU and the model's own on a GPU."
    device: str = "auto"
    "auto, cpu, cuda, cuda:1."
    threads: int | None = None
    "CPU threads."
    trust_remote_code: bool = False
    "Run code that comes with the model."

    def arguments(self) -> dict[str, Any]:
        """Returns them as keyword arguments of the library; what wasn't given keeps the library's default."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        renamed = {"map": "mapping", "threads": "n_threads"}
        return {renamed.get(name, name): value for name, value in given.items()}


@app.command
def trace(
    pool: Pool,
    /,
    *,
    model: str,
    out: Out,
    recipe: Literal["default", "s2l"] = "default",
    epochs: float | None = None,
    states: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    options: ScoringOptions | None = None,
) -> None:
    """Fine-tune a proxy and record every example's loss as it goes.

    Run the same command again to go on after an interruption.

    Parameters
    ----------
    pool
        File(s), a glob, a folder of shards, a `datasets` folder, or a hub id.
    model
        The proxy: a folder or a hub id of a small model.
    out
        The loss store to write.
    recipe
        s2l is the S2L authors': 3 epochs, learning rate 2e-5, batch 128, 512 tokens, Alpaca template.
    epochs
        Passes over the pool; 3 unless given.
    states
        How many states between base and final are recorded; 12 unless given.
    learning_rate
        Peak learning rate; the recipe's unless given.
    batch_size
        Examples per optimiser step; the recipe's unless given.
    """
    from lossift import scoring

    training = {"epochs": epochs, "states": states, "learning_rate": learning_rate, "batch_size": batch_size}
    arguments: dict[str, Any] = {name: value for name, value in training.items() if value is not None}
    arguments |= (options or ScoringOptions()).arguments()
    with Bars(talk) as progress:
        store = scoring.trace(_pool(pool), model, out, recipe=recipe, talk=_say, progress=progress, **arguments)
    _say(f"{store.path}: {store.n_examples:,} examples, states {', '.join(store.states)}")
    if len(store.states) > 2:
        _say(f"next: lossift select {shlex.quote(str(out))} --method s2l --budget 11% --out subset.jsonl")


@app.command
def score(
    pool: Pool, /, *, model: Models, out: Out, view: str | None = None, options: ScoringOptions | None = None
) -> None:
    """Record every example's loss under existing models.

    Run the same command again to go on after an interruption, or with more models to add theirs.

    Parameters
    ----------
    pool
        File(s), a glob, a folder of shards, a `datasets` folder, or a hub id.
    model
        One or more models, in training order: folders, hub ids; NAME=PATH names the state.
    out
        The loss store to write.
    view
        Name of the view, to keep losses under several templates in one store; the template's unless given.
    """
    from lossift import scoring

    arguments = (options or ScoringOptions()).arguments() | {"view": view}
    with Bars(talk) as progress:
        store = scoring.score(_pool(pool), model, out, talk=_say, progress=progress, **arguments)
    _say(f"{store.path}: {store.n_examples:,} examples, states {', '.join(store.states)}")
    if len(store.states) > 1:
        _say(f"next: lossift select {shlex.quote(str(out))} --method learnability --budget 6% --out subset.jsonl")


@app.command
def select(
    losses: Path,
    /,
    *,
    budget: str,
    out: Out,
    method: Literal["s2l", "learnability", "delta", "random"] = "s2l",
    by: str | None = None,
    states: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    base: str | None = None,
    ref: str | None = None,
    preset: Literal["paper", "released"] = "paper",
    shape: Literal["raw", "relative", "zscore", "differences"] = "raw",
    n_clusters: int = 100,
    n_iterations: int = 20,
    init: Literal["k-means++", "random"] = "k-means++",
    fit: Literal["auto", "full", "minibatch", "sample"] = "auto",
    n_restarts: int = 1,
    tolerance: float = 0.0,
    min_score: float | None = None,
    seed: int = 0,
    threads: Threads = None,
) -> None:
    """Choose a subset from a loss store and write its rows, untouched.

    Beside the subset stands its manifest, with everything needed to choose it again.

    Parameters
    ----------
    losses
        The loss store (--out of trace or score).
    budget
        How much: a count (500), a fraction of all examples (0.11) or a percentage (11%).
    out
        The subset to write; the extension sets the container (.jsonl, .json, .parquet, .csv, ...).
    method
        s2l: even draws from clusters of trajectories; learnability: the largest 1 - ref/base; delta: the
        largest base - ref; random: the control.
    by
        Stratum column whose groups share the budget evenly, smallest first.
    states
        States of a trajectory; of a trace, those between the first and the last step unless given.
    base
        State before training; the first unless given.
    ref
        State after training; the last unless given.
    preset
        s2l with --by: one clustering over the pool (paper) or one for each stratum (released).
    shape
        What of a trajectory is clustered.
    n_clusters
        K of the k-means.
    n_iterations
        Iterations of the k-means, at most.
    init
        Where centroids start: greedy k-means++ on a sample, or on random examples.
    fit
        What they are fitted on: all rows, small batches of them, a sample; auto goes by their number.
    n_restarts
        How many times to begin anew; the fit of the smallest inertia is kept.
    tolerance
        End when an iteration changes no more than this share of the labels.
    min_score
        Choose nothing with a lower score.
    seed
        Decides everything random.
    threads
        CPU threads; the outcome does not depend on them.
    """
    from lossift.select import select as select_rows

    container_of(out)  # refused before any work is done
    with Bars(talk) as progress:
        chosen = select_rows(
            losses,
            method,
            budget=budget,
            seed=seed,
            by=by,
            states=states,
            base=base,
            ref=ref,
            preset=preset,
            shape=shape,
            n_clusters=n_clusters,
            n_iterations=n_iterations,
            init=init,
            fit=fit,
            n_restarts=n_restarts,
            tolerance=tolerance,
            min_score=min_score,
            n_threads=threads,
            progress=progress,
        )
    manifest = chosen.write(out, command=["lossift", *sys.argv[1:]])
    _say(chosen.summary())
    _say(f"wrote {out} and {manifest}")


@app.command
def demo(*, out: Out = Path("lossift-demo"), seed: int = 0, threads: Threads = None) -> None:
    """Show the whole journey on a small made-up pool and a tiny model, in minutes, on a CPU.

    Parameters
    ----------
    out
        Folder for the pool, the model, the losses and the subsets.
    seed
        Decides everything random.
    threads
        CPU threads.
    """
    from lossift.demo import run

    with Bars(talk) as progress:
        table = run(out, seed=seed, n_threads=threads, talk=_say, progress=progress)
    print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors are one line, and a hint where the cure is known."""
    try:
        app(
            arguments,
            exit_on_error=False,
            print_error=False,
            help_on_error=False,
            error_console=talk,
            result_action="return_value",
        )
    except CycloptsError as error:
        _complain(" ".join(str(error).split()), "lossift --help, or lossift COMMAND --help")
        return EXIT_WRONG
    except LossiftError as error:
        _complain(_as_option(str(error)), error.hint and _as_option(error.hint))
        return EXIT_WRONG
    except KeyboardInterrupt:
        _complain("interrupted; what was written is kept, the same command goes on from there", None)
        return EXIT_INTERRUPTED
    return 0


def _pool(pool: list[str]) -> str | list[str]:
    return pool[0] if len(pool) == 1 else pool


def _as_option(message: str) -> str:
    """Returns the message with the library's names of arguments as the command line spells them."""
    names = {"n_threads": "threads", "mapping": "map", "models": "model"}
    argument, colon, rest = message.partition(": ")
    if colon and argument in _ARGUMENTS:
        message = f"--{names.get(argument, argument).replace('_', '-')}: {rest}"
    return message


def _say(line: str) -> None:
    talk.print(line, markup=False)


def _complain(message: str, hint: str | None) -> None:
    one_line = message.replace("\r", "\\r").replace("\n", "\\n")  # file names may hold anything
    talk.print(f"error: {one_line}", markup=False, style="red" if talk.is_terminal else None)
    if hint:
        talk.print(f"hint: {hint}", markup=False)
