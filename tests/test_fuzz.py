"""The fuzzing of the door: a short run of it, and that it would find something. `make fuzz` runs it for long."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fuzz_door
from fuzz_door import VERBS, Finding


def run(*arguments):
    command = [sys.executable, Path(__file__).parent / "fuzz_door.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_few_thousand_calls():
    done = run("--seed", "1", "--cases", "3000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3000 cases of seed 1, no finding" in done.stdout
    for name in VERBS:
        assert f" {name}: right" in done.stdout
        assert f" {name}: ValueError" in done.stdout
        assert f" {name}: TypeError" in done.stdout


def test_a_case_is_the_same_call_again():
    one, two = (run("--seed", "5", "--case", "12", "--verbs", "draw", "keys").stdout for _ in range(2))
    assert one == two
    assert "must be " in one


def run_until_found(name):
    for case in range(500):
        fuzz_door.run_case(1, case, [name])


class Panic(BaseException):
    """What pyo3 makes of a panic derives from BaseException, too."""


def panics(*_, **__):
    raise Panic("index out of bounds")


def swallows(call):
    def changed(**given):
        try:
            return call(**given)
        except (ValueError, TypeError):
            return np.zeros(3, np.int64)

    return changed


def one_off(call):
    def changed(**given):
        found = call(**given)
        return (found[0], found[1] + np.ones((), found[1].dtype)) if isinstance(found, tuple) else found + 1

    return changed


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"cluster", "diagnose"}))
@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda _: panics, "raised Panic: index out of bounds"),
        (swallows, "was not refused"),
        (one_off, "must be fine"),
        (lambda _: lambda **given: int("refuses everything"), "raised ValueError"),
    ],
)
def test_a_planted_bug_is_found(monkeypatch, name, plant, said):
    verb = VERBS[name]
    monkeypatch.setitem(VERBS, name, verb._replace(call=plant(verb.call)))
    with pytest.raises(Finding, match=said):
        run_until_found(name)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("labels", lambda labels: np.where(labels == 0, labels.max(), labels)),
        ("labels", lambda labels: np.where(np.arange(len(labels)) == 0, -1, labels)),
        ("sizes", lambda sizes: sizes + 1),
        ("centroids", lambda centroids: centroids + centroids.mean() * np.float32(1e-3)),
        ("total_inertia", lambda inertia: inertia * 1.001),
        ("inertia", lambda steps: [step * 1.001 for step in steps]),
        ("fit", lambda _: "sample"),
        ("pruning", lambda way: "none" if way == "cells" else "cells"),
        ("n_fit_rows", lambda n: n + 1),
        ("moved", lambda moved: [*moved, 0]),
        ("why_stopped", lambda why: why + "."),
    ],
)
def test_a_planted_bug_of_a_clustering_is_found(monkeypatch, field, change):
    class Changed:
        def __init__(self, found):
            self.found = found

        def __getattr__(self, name):
            value = getattr(self.found, name)
            return change(value) if name == field else value

    verb = VERBS["cluster"]
    monkeypatch.setitem(VERBS, "cluster", verb._replace(call=lambda **given: Changed(verb.call(**given))))
    with pytest.raises(Finding, match="must be fine"):
        run_until_found("cluster")


@pytest.mark.parametrize("argument", ["pruning", "n_threads"])
def test_a_way_that_finds_something_else_is_found(monkeypatch, argument):
    verb = VERBS["cluster"]

    def changed(**given):
        usual = given.get(argument) in (None, "none", 1)
        return verb.call(**(given if usual else given | {"seed": int(given["seed"]) ^ 1}))

    monkeypatch.setitem(VERBS, "cluster", verb._replace(call=changed))
    with pytest.raises(Finding, match="must be fine"):
        run_until_found("cluster")


def test_a_new_argument_is_not_forgotten(monkeypatch):
    monkeypatch.setitem(VERBS, "draw", VERBS["draw"]._replace(kinds={"cells": None}))
    with pytest.raises(AssertionError, match="draw: arguments that are not fuzzed"):
        fuzz_door.check_complete()
    monkeypatch.delitem(VERBS, "draw")
    with pytest.raises(AssertionError, match=r"not fuzzed: \{'draw'\}"):
        fuzz_door.check_complete()
