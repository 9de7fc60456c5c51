"""What a selection takes in memory, beside the losses: nothing of the size of the pool that isn't in the result."""

import subprocess
import sys

import pytest

N = 8_000_000

CODE = """
import sys
from pathlib import Path
import numpy as np, lossift

def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))

n, method, by = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "by"
losses = np.ones((2, n), np.float32)
losses[1] = np.linspace(0, 2, n)
lossift.select(losses[:, :1000].T, method, budget=0.11)  # what is loaded and allocated once
labels = (losses[1] * 3).astype(np.int32) if by else None
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = resident("VmRSS")
chosen = lossift.select(losses.T, method, budget=0.11, by=labels, n_threads=2)
assert len(chosen.rows) == round(0.11 * n)
chosen.summary()
print((resident("VmHWM") - before) / n)
"""


# Bytes per example: a reason (1), the numbers of the chosen rows (0.9), a mark (0.1), the codes of strata (4), scores
# (8), and one to spare.
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("method", "by", "most"),
    [("random", "", 3), ("random", "by", 7), ("learnability", "", 12), ("learnability", "by", 16)],
)
def test_bytes_per_example(method, by, most):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(N), method, by or "-"], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) < most
