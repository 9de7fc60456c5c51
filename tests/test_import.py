"""What importing costs, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "python" / "lossift"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_import_leaves_torch_unloaded():
    code = (
        "import sys, lossift, numpy, lossift.cli\n"
        "lossift.select(numpy.random.rand(50, 3), budget=5)\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas') if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import lossift; print(time.perf_counter() - t)"
    assert any(float(run(code)) < 0.2 for _ in range(20))  # the machine may be busy with something else


# Each layer may import what stands to its right (DESIGN: data flows one way).
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo", "progress"},
    {"scoring"},
    {"select", "diagnose"},
    {"selection"},
    {"cluster"},
    {"table"},
    {"scores", "budget", "cells"},
    {"store"},
    {"column_writer"},
    {"tensorfile", "store_index"},
    {"pool"},
    {"arguments", "atomic", "reasons", "threads", "jsontext"},
    {"version"},
    {"errors", "_native"},
]


def layer_of(module):
    name = module.split(".")[1]
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_scoring_is_an_attribute_that_loads_when_asked():
    code = "import sys, lossift; assert 'torch' not in sys.modules; print(lossift.scoring.score.__name__)"
    assert run(code).strip() == "score"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    if path == PACKAGE / "__init__.py":
        return
    here = "lossift." + str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        names = [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if not name.startswith("lossift."):
                continue
            same_package = name.split(".")[1] == here.split(".")[1]
            assert same_package or layer_of(name) > layer_of(here), f"{here} imports {name}"
