"""The wheel: installed into an empty environment, without Rust or torch, it selects from an array and a store."""

import json
import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

import lossift
from lossift.store import LossStore

ROOT = Path(__file__).parent.parent
SCRIPT = """
import sys, importlib.util
import numpy as np, lossift
assert importlib.util.find_spec("torch") is None, "torch is installed here"
assert importlib.util.find_spec("transformers") is None
losses = np.random.default_rng(0).random((1000, 6), dtype=np.float32)
print(len(lossift.select(losses, budget=0.11, n_clusters=10).rows))
print(len(lossift.select(sys.argv[1], "learnability", budget="50%").rows))
"""


@pytest.mark.slow
def test_wheel_in_an_empty_environment(tmp_path):
    subprocess.run(["make", "wheel"], cwd=ROOT, check=True, timeout=900, capture_output=True)
    (wheel,) = (ROOT / "dist").glob(f"lossift-{lossift.__version__}-cp311-abi3-*.whl")

    pool_file = tmp_path / "pool.jsonl"
    pool_file.write_text("".join(json.dumps({"prompt": str(i), "response": "r"}) + "\n" for i in range(20)))
    store = LossStore.create(tmp_path / "losses", lossift.read_pool(pool_file))
    ones = np.ones(20, np.int32)
    store.add_view("chat", n_supervised=ones, n_tokens=ones, why_invalid=np.zeros(20, np.uint8), meta={})
    for state, loss in (("base", 2.0), ("final", 1.0)):
        store.add_state(state)
        writer = store.writer(state, "chat", meta={"weights": state}, part_rows=20)
        writer.write_part(0, 20, np.full(20, loss, np.float32), np.zeros(20, np.uint8))
        writer.seal()

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"the wheel's dependencies can't be had here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    # A PATH without cargo or this environment's programs: what a user's machine has.
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, "-c", SCRIPT, tmp_path / "losses"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["110", "10"], done.stderr
    command = [tmp_path / "env" / "bin" / "lossift", "select", tmp_path / "losses", "--method", "learnability"]
    command += ["--budget", "25%", "--out", tmp_path / "subset.jsonl"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert len((tmp_path / "subset.jsonl").read_text().splitlines()) == 5
