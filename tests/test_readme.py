"""Prose that shows code is executed: the blocks of README and docs, in order, in one folder."""

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from lossift.demo import generate

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [
    pytest.param(language, block, id=f"{page}-{i}")
    for page, text in PAGES.items()
    for i, (language, block) in enumerate(re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the README's reader has: data.jsonl, a small model, and a model before and after fine-tuning."""
    from lossift.scoring import tiny_model

    folder = tmp_path_factory.mktemp("readme")
    rows = list(islice(generate(0), 400))
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"{row['prompt']} {row['response']}" for row in rows]
    for seed, name in enumerate(("small-model", "base-model", "tuned-model")):
        tiny_model(
            texts, folder / name, vocab_size=300, hidden_size=32, n_layers=1, n_heads=2, max_length=128, seed=seed
        )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_block_runs(folder, language, block):
    """In the order of the page: later blocks use what earlier ones made."""
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block]
    if language == "sh":
        lossift = str(Path(sys.executable).parent / "lossift")
        command = ["bash", "-euo", "pipefail", "-c", re.sub(r"^lossift ", f"{lossift} ", block, flags=re.MULTILINE)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_readme_subsets_have_their_budgets(folder):
    sizes = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.jsonl")}
    assert sizes == {
        "data.jsonl": 400,
        "subset.jsonl": 44,
        "top.jsonl": 24,
        "control.jsonl": 24,
        "by-skill.jsonl": 20,
        "as-released.jsonl": 200,
    }


def test_make_targets_that_the_readme_names_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = set(re.findall(r"`make ([a-z]+)`|    make ([a-z]+)", PAGES["README.md"]))
    assert {name for pair in named for name in pair if name} == {"demo", "test", "wheel", "bench"}
    assert {"demo", "test", "wheel", "bench"} <= set(targets)
