"""Fuzzes the door: random calls of everything in `lossift._native`, good ones and spoiled ones.

No call may crash, hang or panic; a spoiled one is refused with ValueError or TypeError (OverflowError, where Python
says so itself); a good one fulfils what its verb promises. Case number C of seed S is always the same call:

    python tests/fuzz_door.py --minutes 30 --seed 1        (make fuzz MINUTES=30 SEED=1)
    python tests/fuzz_door.py --seed 1 --case 4711         again, with the arguments shown

A plain seeded generator and not a coverage-guided one (atheris): the door has some fifty ways to refuse, which a
generator that knows the arguments reaches in seconds. What remains is deep in the core, where what matters is in the
floats, of which coverage sees next to nothing; and a guided run needs an instrumented build and isn't repeated from a
seed. The calls are made in a child process, so that a crash is a finding that names its case.
"""

from __future__ import annotations

import argparse
import faulthandler
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import fuzz_cluster
import fuzz_diagnose
import fuzz_draw
import fuzz_reasons
from fuzz_arguments import EITHER, FINE, REFUSED, Chance, Planned, both, show
from lossift import _native

HANG_SECONDS = 300
FOUND = 3  # exit code of a child that has told of a finding


VERBS = fuzz_cluster.VERBS | fuzz_diagnose.VERBS | fuzz_draw.VERBS | fuzz_reasons.VERBS
# Verbs without arguments: their answers are tested elsewhere.
WITHOUT_ARGUMENTS = {"available_threads", "simd", "simd_available"}


class Finding(Exception):  # noqa: N818
    """A call that did something else than it must."""


def check_complete() -> None:
    """Refuses to fuzz while there is a verb or an argument that nothing here knows of."""
    functions = {name for name in dir(_native) if inspect.isbuiltin(getattr(_native, name))}
    assert functions == set(VERBS) | WITHOUT_ARGUMENTS, f"not fuzzed: {functions - set(VERBS) - WITHOUT_ARGUMENTS}"
    for name, verb in VERBS.items():
        missing = set(inspect.signature(verb.call).parameters) - set(verb.kinds)
        assert not missing, f"{name}: arguments that are not fuzzed: {missing}"


def run_case(seed: int, case: int, verbs: list[str], *, tell: bool = False) -> tuple[str, str]:
    """Makes one call; returns its verb and what came of it. Raises `Finding`."""
    chance = Chance(seed, case)
    name = "cluster" if "cluster" in verbs and chance.maybe(0.5) else chance.pick(verbs)  # most is behind that one
    verb = VERBS[name]
    given, verdict = verb.arguments(chance)
    planned = verdict
    spoiled = [argument for argument, kind in verb.kinds.items() if kind is not None and argument in given]
    chance.rng.shuffle(spoiled)
    spoiled = spoiled[: chance.pick([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])]
    for argument in spoiled:
        given[argument], follows = verb.kinds[argument].spoil(chance, given[argument])
        verdict = both(verdict, follows)
    if verdict == REFUSED and (len(spoiled) > 1 or (spoiled and planned == REFUSED)):
        verdict = EITHER  # two wrong lengths may agree
    told = ", ".join(f"{argument}={show(value)}" for argument, value in given.items())
    told = f"{name}({told}); spoiled: {spoiled or 'nothing'}; must be {verdict}"
    if tell:
        print(told, flush=True)
    try:
        found = verb.call(**given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        match error:
            case Planned():
                return name, "what progress raised"
            case RuntimeError() if "could not start" in said:
                return name, "no threads to be had"
            case RuntimeError() if "internal error" in said and "progress" in given and verdict == EITHER:
                return name, "an internal error after losses changed in the middle"
            case ValueError() | TypeError() | OverflowError() if verdict != FINE:
                return name, type(error).__name__
        raise Finding(f"{told}\nraised {said}") from error
    if verdict == REFUSED:
        raise Finding(f"{told}\nwas not refused")
    if verdict == EITHER:
        return name, "some answer"
    try:
        verb.check(given, found, chance)
    except AssertionError as error:
        raise Finding(f"{told}\n{error}") from error
    return name, f"right, pruning: {found.pruning}" if name == "cluster" else "right"


def fuzz(options: argparse.Namespace) -> int:
    """Runs the cases; returns an exit code."""
    check_complete()
    if options.case is not None:
        print(run_case(options.seed, options.case, options.verbs, tell=True))
        return 0
    started, case, tally = time.monotonic(), 0, Counter()
    with options.inside.open("r+b") if options.inside else tempfile.TemporaryFile() as place:
        while case < options.cases and time.monotonic() - started < 60 * options.minutes:
            place.seek(0)
            place.write(b"%d\n" % case)
            place.flush()
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            try:
                tally[run_case(options.seed, case, options.verbs)] += 1
            except Finding:
                traceback.print_exc()
                print(f"finding in case {case}: {repeat(options, case)}")
                return FOUND
            case += 1
    faulthandler.cancel_dump_traceback_later()
    for (name, verdict), count in sorted(tally.items()):
        print(f"{count:9} {name}: {verdict}")
    print(f"{case:9} cases of seed {options.seed}, no finding, {time.monotonic() - started:.0f} s, {_native.simd()}")
    return 0


def repeat(options: argparse.Namespace, case: int) -> str:
    verbs = "" if options.verbs == list(VERBS) else " --verbs " + " ".join(options.verbs)
    return f"repeat with: python tests/fuzz_door.py --seed {options.seed} --case {case}{verbs}"


def main(arguments: list[str]) -> int:
    """Runs the cases in a child, so that the end of the process is a finding like any other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--cases", type=float, default=float("inf"))
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside or options.case is not None:
        faulthandler.enable()
        return fuzz(options)
    print(f"seed {options.seed}", flush=True)
    with tempfile.NamedTemporaryFile() as place:
        command = [sys.executable, __file__, *arguments, "--seed", str(options.seed), "--inside", place.name]
        # Panics are excused after losses changed in the middle; a finding shows its backtrace when it is repeated.
        code = subprocess.run(command, check=False, env=os.environ | {"RUST_BACKTRACE": "0"}).returncode
        case = place.read().strip()
    if code in (0, FOUND):
        return code
    why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    print(f"the process ended by {why}{' in case ' + case.decode() if case else ''}: {repeat(options, int(case or 0))}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
