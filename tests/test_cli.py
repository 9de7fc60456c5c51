"""The command line: what it lists, its exit codes, and what bad input gets."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import lossift
from lossift.cli import main
from lossift.store import LossStore

N = 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a pool and a store of its losses under base, step-1, step-2 and final."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{i}", "response": f"r{i}", "source": "ab"[i % 2]} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = LossStore.create("losses", lossift.read_pool("pool.jsonl"))
    ones = np.ones(N, np.int32)
    store.add_view("chat", n_supervised=ones, n_tokens=ones, why_invalid=np.zeros(N, np.uint8), meta={})
    rng = np.random.default_rng(0)
    for step, state in enumerate(("base", "step-1", "step-2", "final")):
        store.add_state(state, step=step)
        writer = store.writer(state, "chat", meta={"weights": state}, part_rows=N)
        writer.write_part(0, N, (rng.random(N) + 3 - step).astype(np.float32), np.zeros(N, np.uint8))
        writer.seal()
    store.update_info(trace=True)
    return tmp_path


def select(*arguments):
    return main(["select", "losses", "--out", "subset.jsonl", *arguments])


def test_help_lists_what_works(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("demo", "score", "select", "trace"):
        assert f" {command} " in out
    for command in ("report", "import", "explain", "diff", "verify", "plan"):
        assert f" {command} " not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == lossift.__version__


@pytest.mark.parametrize("method", ["s2l", "learnability", "delta", "random"])
def test_select(folder, capsys, method):
    assert select("--method", method, "--budget", "20%", "--by", "source") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "6 of 30 examples chosen (20.0 %)" in captured.err
    assert len((folder / "subset.jsonl").read_text().splitlines()) == 6
    manifest = json.loads((folder / "subset.manifest.json").read_text())
    assert manifest["parameters"]["by"] == "source"
    assert manifest["counts"]["chosen"] == 6


def test_kmeans_options(folder, capsys):
    options = ["--n-clusters", "4", "--init", "random", "--fit", "minibatch", "--n-restarts", "2", "--tolerance", "0.1"]
    assert select("--budget", "5", *options) == 0
    parameters = json.loads((folder / "subset.manifest.json").read_text())["parameters"]
    found = {name: parameters[name] for name in ("n_clusters", "init", "fit", "n_restarts", "tolerance")}
    assert found == {"n_clusters": 4, "init": "random", "fit": "minibatch", "n_restarts": 2, "tolerance": 0.1}
    capsys.readouterr()
    assert select("--budget", "5", "--method", "random", "--fit", "full") == 2
    assert capsys.readouterr().err == "error: --fit: found 'full', but method 'random' uses states\n"


def test_states_and_roles(folder):
    assert select("--budget", "5", "--states", "base", "step-1", "--shape", "differences") == 0
    manifest = json.loads((folder / "subset.manifest.json").read_text())
    assert manifest["parameters"]["states"] == ["base", "step-1"]
    assert select("--budget", "5", "--method", "delta", "--base", "step-1", "--ref", "step-2") == 0
    manifest = json.loads((folder / "subset.manifest.json").read_text())
    assert (manifest["parameters"]["base"], manifest["parameters"]["ref"]) == ("step-1", "step-2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["select", "losses", "--out", "s.jsonl", "--budget", "0"], "--budget: found 0, the smallest is 1 example"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "110%"], "--budget: found 110%, a fraction is above 0"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "31"], "--budget: found 31 examples, the pool has 30"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--method", "magic"], "magic"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--by", "domain"], "--by: found 'domain', stratum"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--states", "late"], "no losses of state 'late'"),
        (["select", "losses", "--out", "s.xml", "--budget", "3"], ".xml"),
        (["select", "nowhere", "--out", "s.jsonl", "--budget", "3"], "nowhere: there is no such loss store"),
        (["select", "losses", "--out", "s.jsonl"], "--budget"),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--colour", "red"], "--colour"),
        (["choose"], "choose"),
        (
            ["select", "losses", "--out", "s.jsonl", "--budget", "3", "--threads", "9999"],
            "--threads: found 9999, allowed",
        ),
        (
            ["select", "losses", "--out", "s.jsonl", "--budget", "3", "--states", "base", "--shape", "differences"],
            "--shape: ",
        ),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--n-clusters", "9" * 12], "--n-clusters: "),
        (["select", "losses", "--out", "s.jsonl", "--budget", "3", "--n-iterations", "9" * 23], "--n-iterations: "),
        (
            ["select", "losses", "--out", "s.jsonl", "--budget", "3", "--method", "delta", "--states", "base"],
            "--states: ",
        ),
        (
            ["select", "losses", "--out", "s.jsonl", "--budget", "3", "--method", "delta", "--min-score", "99"],
            "--min-score: found 99.0, the highest score is",
        ),
        (["select", "two\nlines", "--out", "s.jsonl", "--budget", "3"], "two\\nlines: there is no such loss store"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *rest = captured.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert all(line.startswith("hint: ") for line in rest)
    assert not list(folder.glob("s.*"))


def test_unfinished_trace_is_refused(folder, capsys):
    """A default state without losses is an error, never the next best one."""
    for name in ("0003-final", "0002-step-2"):
        (folder / "losses" / "columns" / "chat" / f"{name}.safetensors").unlink()
    for method, state in (("learnability", "final"), ("s2l", "step-2"), ("random", "step-2")):
        assert select("--budget", "3", "--method", method) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert f"no losses of state '{state}'; states with losses: base, step-1" in error
        assert "run the same lossift trace command again" in hint
    assert select("--budget", "3", "--states", "base", "step-1", "--n-clusters", "2") == 0
    assert select("--budget", "3", "--method", "delta", "--ref", "step-1") == 0


def test_changed_pool(folder, capsys):
    (folder / "pool.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * N)
    assert select("--budget", "3", "--n-clusters", "2") == 2
    assert "has changed since it was scored" in capsys.readouterr().err
    assert not list(folder.glob("subset*"))


@pytest.mark.parametrize("failing", ["pathlib.Path.write_bytes", "lossift.pool.pool.write_rows"])
def test_full_disk_leaves_the_pair_that_was_there(folder, capsys, monkeypatch, failing):
    assert select("--budget", "3", "--method", "delta") == 0
    before = {path.name: path.read_bytes() for path in folder.glob("subset*")}

    def refuse(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(failing, refuse)
    assert select("--budget", "4", "--n-clusters", "2") == 2
    assert "can't be written: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if "subset" in path.name} == before


def test_interrupt(folder, capsys, monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["lossift.select"], "parse_budget", interrupt)
    assert select("--budget", "3") == 130
    assert "interrupted" in capsys.readouterr().err


def test_as_a_module(folder):
    command = [sys.executable, "-m", "lossift", "select", "losses", "--budget", "3", "--out", "subset.csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "subset.csv").read_text().startswith("prompt,response,source")


def test_without_torch_scoring_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [name for name in sys.modules if name.startswith("lossift.scoring")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(vars(lossift), "scoring", raising=False)
    assert main(["score", "pool.jsonl", "--model", "m", "--out", "x"]) == 2
    assert "hint: pip install 'lossift[score]'" in capsys.readouterr().err
