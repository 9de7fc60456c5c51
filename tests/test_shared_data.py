"""Every real file that users' shapes are known from is read, with the number of rows it is known to hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lossift.pool import read_pool

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real files aren't here: no {DATA}")

_QUESTION = "question/answer: prompt=question, response=answer"
_SQL = "question/answer: prompt=question, response=sql"
_ALPACA = "alpaca: prompt=instruction(+input), response=output"
_GPTEACHER = "alpaca: prompt=instruction(+input), response=response"
_COMPLETION = "prompt/completion: prompt=prompt, response=completion"
_MIX = "prompt/completion: prompt=prompt, response=response"
_MESSAGES = "messages: messages=messages"

FILES = [
    ("gsm8k_train.jsonl.gz", 7_473, _QUESTION),
    ("gsm8k_test.jsonl.gz", 1_319, _QUESTION),
    ("alpaca_52k.json.gz", 52_002, _ALPACA),
    ("alpaca_en_demo.json", 999, _ALPACA),
    ("alpaca_zh_demo.json", 1_000, _ALPACA),
    ("sharegpt_toolcall_en.json", 300, "sharegpt: messages=conversations, tools=tools"),
    ("sharegpt_identity.json", 500, "sharegpt: messages=conversations"),
    ("messages_parts_v1_demo.jsonl", 500, _MESSAGES),
    ("sgd_messages_train.jsonl.gz", 3_000, _MESSAGES),
    ("sgd_messages_test.jsonl.gz", 400, _MESSAGES),
    ("t0_prompt_completion_train.parquet", 10_710, _COMPLETION),
    ("t0_prompt_completion_test.parquet", 968, _COMPLETION),
    ("nl2bash_train.parquet", 11_335, _COMPLETION),
    ("nl2bash_test.parquet", 1_053, _COMPLETION),
    ("wikisql_train.jsonl.gz", 12_000, _SQL),
    ("wikisql_test.jsonl.gz", 2_000, _SQL),
    ("medquad_train.jsonl.gz", 14_900, _QUESTION),
    ("medquad_test.jsonl.gz", 1_458, _QUESTION),
    ("gpteacher_codegen.json.gz", 4_535, _GPTEACHER),
    ("gpteacher_roleplay.json.gz", 1_923, _GPTEACHER),
    ("gaokao_zh_train.jsonl.gz", 1_351, _QUESTION),
    ("gaokao_zh_test.jsonl.gz", 145, _QUESTION),
    ("mbpp_completion.jsonl.gz", 974, "prompt/completion: prompt=prompt, response=canonical_solution"),
    ("mix_train.parquet", 33_180, _MIX),
    ("mix_test.parquet", 3_216, _MIX),
    ("mix_train_messages.jsonl.gz", 15_000, _MESSAGES),
    ("mix_test_messages.jsonl.gz", 3_516, _MESSAGES),
]


@pytest.mark.parametrize(("name", "n_examples", "mapping"), FILES)
def test_every_file_is_recognised(name, n_examples, mapping):
    pool = read_pool(DATA / name)
    assert (len(pool), pool.mapping) == (n_examples, mapping)
    assert len(np.unique(pool.ids)) == n_examples
    last = pool.example(n_examples - 1).messages
    assert [turn.role for turn in last if turn.supervised][-1] == "assistant"


def test_the_table_above_names_every_file():
    assert {name for name, _, _ in FILES} == {file.name for file in DATA.iterdir()} - {"README.md"}


def test_strata_of_the_mixture():
    sources = read_pool(DATA / "mix_train.parquet").strata["source"]
    n_of = dict(zip(sources.names, np.bincount(sources.codes).tolist(), strict=True))
    assert n_of == {
        "gaokao_zh": 1_345,
        "gpteacher_code": 4_118,
        "gpteacher_roleplay": 1_744,
        "gsm8k": 7_473,
        "medquad": 4_500,
        "nl2bash": 5_000,
        "t0": 5_000,
        "wikisql": 4_000,
    }


def test_weights_and_tools_are_read():
    parts = read_pool(DATA / "messages_parts_v1_demo.jsonl").example(0).messages
    assert [(turn.role, turn.supervised) for turn in parts] == [("user", False), ("assistant", True)]
    tools = read_pool(DATA / "sharegpt_toolcall_en.json").example(0).tools
    assert tools is not None
    assert {"name", "description", "parameters"} <= tools[0].keys()


def test_a_file_comes_back_whole(tmp_path):
    name = "messages_parts_v1_demo.jsonl"
    read_pool(DATA / name).write(np.arange(500), tmp_path / name)
    assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
