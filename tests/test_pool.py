"""Rows in, examples out, the same rows back: for every container, format, and way to name a pool.

Long because it is mostly tables: formats, bad files, bad arguments and containers, a line each.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import resource
import sys
import tempfile
from contextlib import contextmanager
from datetime import date
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossift.errors import ArgumentError, LossiftError, MissingExtraError, PoolError, PoolNotFoundError
from lossift.pool import Message, read_pool, reopen
from lossift.pool.identity import number
from lossift.pool.text import JsonLines

ROWS = [{"prompt": f"say {i}", "response": f"{i} é 你好 \u2028", "source": "ab"[i % 2]} for i in range(7)]
LINES = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS]


def put(path: Path, content: bytes | str) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def unpack(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def csv_of(rows: list[dict], delimiter: str = ",") -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return put(tmp_path / "rows.jsonl", b"".join(LINES))


# ---------------------------------------------------------------- formats

U, A, S = "user", "assistant", "system"
TOOLS = [{"name": "clock", "parameters": {"zone": "text"}}]

FORMATS = [
    ({"instruction": "Add.", "input": "1 2", "output": "3"}, "alpaca: prompt=instruction(+input), response=output",
     (Message(U, "Add.", "1 2"), Message(A, "3"))),
    ({"instruction": "Hi", "output": ""}, "alpaca: prompt=instruction, response=output",
     (Message(U, "Hi"), Message(A, ""))),
    ({"instruction": "Hi", "input": None, "response": "Ho", "system": "Be kind."},
     "alpaca: prompt=instruction(+input), response=response, system=system",
     (Message(S, "Be kind."), Message(U, "Hi"), Message(A, "Ho"))),
    ({"prompt": "Hi", "completion": "Ho"}, "prompt/completion: prompt=prompt, response=completion",
     (Message(U, "Hi"), Message(A, "Ho"))),
    ({"prompt": "Hi", "canonical_solution": "Ho"}, "prompt/completion: prompt=prompt, response=canonical_solution",
     (Message(U, "Hi"), Message(A, "Ho"))),
    ({"Question": "1+1", "Answer": 2}, "question/answer: prompt=Question, response=Answer",
     (Message(U, "1+1"), Message(A, "2"))),
    ({"question": "?", "answer": ["A", "C"]}, "question/answer: prompt=question, response=answer",
     (Message(U, "?"), Message(A, "A\nC"))),
    ({"question": "?", "query": "SELECT 1"}, "question/answer: prompt=question, response=query",
     (Message(U, "?"), Message(A, "SELECT 1"))),
    ({"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]},
     "prompt/completion: prompt=prompt, response=completion",
     (Message(U, "Hi", supervised=False), Message(A, "Ho"))),
    ({"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
     "prompt/completion: prompt=prompt, response=chosen", (Message(U, "Hi"), Message(A, "Ho"))),
    ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
     "messages: messages=messages", (Message(U, "Hi"), Message(A, "Ho"))),
    ({"messages": [{"role": "user", "content": "Hi"}]}, "messages: messages=messages", (Message(U, "Hi"),)),
    ({"messages": []}, "messages: messages=messages", ()),
    ({"messages": '[{"role": "user", "content": "Hi"}]'}, "messages: messages=messages", (Message(U, "Hi"),)),
    ({"conversation": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "value": "i"}]},
                       {"role": "assistant", "content": "Ho", "loss_weight": 0.0},
                       {"role": "assistant", "content": "Hu", "weight": 1}]},
     "messages: messages=conversation",
     (Message(U, "Hi"), Message(A, "Ho", supervised=False), Message(A, "Hu"))),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
        {"role": "tool", "content": "noon", "tool_calls": None}]},
     "messages: messages=messages",
     (Message(A, '{"name": "clock", "arguments": "{}"}'), Message("tool", "noon"))),
    ({"system": "Be kind.", "tools": json.dumps(TOOLS), "conversations": [
        {"from": "human", "value": "Time?"}, {"from": "function_call", "value": '{"name": "clock"}'},
        {"from": "observation", "value": "noon"}, {"from": "gpt", "value": "Noon."}]},
     "sharegpt: messages=conversations, system=system, tools=tools",
     (Message(S, "Be kind."), Message(U, "Time?"), Message(A, '{"name": "clock"}'), Message("tool", "noon"),
      Message(A, "Noon."))),
    ({"messages": [{"role": "assistant", "content": "Ho", "loss_weight": False, "tool_calls": '[{"name": "clock"}]'},
                   {"role": "assistant", "content": "Hu", "tool_calls": " "},
                   {"role": "assistant", "content": "Hi", "tool_calls": {}},
                   {"role": "assistant", "content": None, "tool_calls": ['{"function": {"name": "clock"}}']}]},
     "messages: messages=messages",
     (Message(A, 'Ho\n{"name": "clock"}', supervised=False), Message(A, "Hu"), Message(A, "Hi"),
      Message(A, '{"name": "clock"}'))),
    ({"messages": 3, "prompt": "Hi", "response": "Ho"}, "prompt/completion: prompt=prompt, response=response",
     (Message(U, "Hi"), Message(A, "Ho"))),
]  # fmt: skip


@pytest.mark.parametrize(("row", "mapping", "messages"), FORMATS)
def test_formats(row, mapping, messages):
    pool = read_pool([row])
    assert pool.mapping == mapping
    assert pool.example(0).messages == messages
    assert pool.example(0).tools == (tuple(TOOLS) if "tools" in row else None)


MAPPINGS = [
    ("prompt=a,response=b", "prompt/completion: prompt=a, response=b", [(U, "x"), (A, "y")]),
    ({"prompt": "a", "response": "b", "input": "c"}, "prompt/completion: prompt=a(+c), response=b",
     [(U, "x\n\nz"), (A, "y")]),
    ("response=c", "question/answer: prompt=question, response=c", [(U, "q"), (A, "z")]),
    ("messages=turns", "messages: messages=turns", [(U, "t")]),
]  # fmt: skip


@pytest.mark.parametrize(("given_mapping", "mapping", "texts"), MAPPINGS)
def test_mappings(given_mapping, mapping, texts):
    row = {"a": "x", "b": "y", "c": "z", "question": "q", "answer": "r", "turns": [{"role": "user", "content": "t"}]}
    pool = read_pool([row], mapping=given_mapping)
    assert pool.mapping == mapping
    assert [(turn.role, turn.text) for turn in pool.example(0).messages] == texts


# ---------------------------------------------------------------- what bad input gets

_TEXTS = "text, a number, a list of these or a list of turns"
_GOOD = '{"question": "q", "answer": "a"}\n'

BAD_FILES = [
    ("a.jsonl", _GOOD + '{"question": \n', "a.jsonl, line 2: broken JSON: Expecting value (column 15)"),
    ("a.jsonl", _GOOD + "\n" + _GOOD + "[1]\n", "a.jsonl, line 4: found a list; allowed: an object of fields"),
    ("a.jsonl", _GOOD.encode() + b'{"question": "\xff"}\n',
     "a.jsonl, line 2: byte 0xff is not UTF-8 text; allowed: UTF-8"),
    ("a.jsonl", _GOOD + '{"question": ' + "[" * 100_000, "a.jsonl, line 2: JSON nested too deeply"),
    ("a.json", '[\n{"question": "q", "answer": "a"},\n{"question"}]',
     "a.json, line 3: broken JSON: Expecting ':' delimiter (column 12)"),
    ("a.json", '[\n{"question": "q", "answer": "a"}\n', "a.json, line 3: broken JSON: found the end of the file; "
     "allowed: ',' or ']'"),
    ("a.json", '[{"question": "q", "answer": "a"}]\n[]', "a.json, line 2: broken JSON: '[' after the end of the array"),
    ("a.json", "[\n1]", "a.json, row 0 (line 2): found a number; allowed: an object of fields"),
    ("a.json", '{\n"data": [{"question": "q", "answer": "a"}]}', "a.json: holds one JSON object with the fields data; "
     "allowed: a JSON array of objects, or one object per line"),
    ("a.jsonl", _GOOD + '{"question": "q"}\n',
     "a.jsonl, row 1 (line 2): no field 'answer' (response); fields found: 'question'"),
    ("a.jsonl", _GOOD + '{"question": "q", "answer": null}\n',
     f"a.jsonl, row 1 (line 2): field 'answer' (response) is null; allowed: {_TEXTS}"),
    ("a.jsonl", _GOOD + '{"question": {}, "answer": "a"}\n',
     f"a.jsonl, row 1 (line 2): field 'question' (prompt) holds an object; allowed: {_TEXTS}"),
    ("a.jsonl", _GOOD + '{"question": "q", "answer": true}\n',
     f"a.jsonl, row 1 (line 2): field 'answer' (response) holds true or false; allowed: {_TEXTS}"),
    ("a.jsonl", '{"messages": [{"role": "boss", "content": "q"}]}',
     "a.jsonl, row 0 (line 1): turn 0 has the role 'boss'; allowed: system, developer, user, human, assistant, gpt, "
     "model, function_call, tool, function, observation"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
     "a.jsonl, row 0 (line 1): turn 0 has a part of type 'image' without text; allowed: parts of text"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "loss_weight": "0"}]}',
     "a.jsonl, row 0 (line 1): turn 0 has a loss_weight that is text; allowed: a number, true or false"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "weight": [0]}]}',
     "a.jsonl, row 0 (line 1): turn 0 has a weight that is a list; allowed: a number, true or false"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "tool_calls": 5}]}',
     "a.jsonl, row 0 (line 1): turn 0 has tool_calls that are a number; allowed: a list of objects"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "tool_calls": {"name": "clock"}}]}',
     "a.jsonl, row 0 (line 1): turn 0 has tool_calls that are an object; allowed: a list of objects"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "tool_calls": [5]}]}',
     "a.jsonl, row 0 (line 1): turn 0 has tool_calls that list a number; allowed: a list of objects"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "q", "tool_calls": "[{"}]}',
     "a.jsonl, row 0 (line 1): found the text '[{'; allowed: a list, or the JSON of one"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}], "tools": ["{bad"]}',
     "a.jsonl, row 0 (line 1): found the text '{bad'; allowed: a list, or the JSON of one"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}], "tools": 5}',
     "a.jsonl, row 0 (line 1): field 'tools' (tools) holds a number; allowed: a list of objects"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}], "tools": "' + "[" * 100_000 + '"}',
     f"a.jsonl, row 0 (line 1): found the text '{'[' * 40}...'; allowed: a list, or the JSON of one"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": [5]}]}',
     "a.jsonl, row 0 (line 1): turn 0 has a part of type a number without text; allowed: parts of text"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}]}\n{"messages": {"role": "user"}}',
     "a.jsonl, row 1 (line 2): field 'messages' (messages) is an object; allowed: a list of turns"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}, "a"]}',
     "a.jsonl, row 0 (line 1): turn 1 is text; allowed: an object with role and content"),
    ("a.jsonl", '{"messages": [{"role": {}, "content": "q"}]}',
     "a.jsonl, row 0 (line 1): turn 0 has the role {}; allowed: system, developer, user, human, assistant, gpt, "
     "model, function_call, tool, function, observation"),
    ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}], "system": {"a": 1}}',
     "a.jsonl, row 0 (line 1): field 'system' (system) holds an object; allowed: text, a number, a list of these or a "
     "list of turns"),
    ("a.jsonl", '{"messages": [{"role": "user"}]}',
     "a.jsonl, row 0 (line 1): turn 0 has content that is null; allowed: text or a list of parts"),
    ("a.jsonl", '{"text": "all in one"}',
     "a.jsonl: no format known for the fields 'text'; allowed: messages (messages|conversation|conversations); "
     "sharegpt (conversations|conversation|messages); alpaca (instruction + output|response|completion|answer); "
     "prompt/completion (prompt|input + completion|response|canonical_solution|chosen|output|answer); "
     "question/answer (question|query|problem + answer|response|sql|solution|answers|output|query)"),
    ("a.csv", 'question,answer\nq,a\nq,"a\n', "a.csv, line 3: broken CSV: unexpected end of data"),
    ("a.csv", "question,answer\nq,a,b\n", "a.csv, line 2: 3 fields; the header has 2"),
    ("a.csv", "answer,question,answer\nq,a,b\n", "a.csv, line 1: the header names 'answer' more than once"),
    ("a.parquet", b"PAR1 and no more", "a.parquet: broken Parquet file: *"),
    ("a.parquet", b"{}", "a.parquet: no format known for the fields (none); *"),
    ("a.txt", "hello", "a.txt: unknown container; allowed: JSON array, JSON Lines, CSV, TSV (each also .gz), "
     "Parquet, a folder saved by `datasets`"),
    ("a.jsonl", "\ufeff".encode("utf-16"), "a.jsonl: UTF-16 text; allowed: UTF-8"),
    ("a.jsonl", "", "a.jsonl: holds no examples; allowed: 1 or more"),
    ("a.jsonl", "\n \n", "a.jsonl: holds no examples; allowed: 1 or more"),
    ("a.json", "[ ]", "a.json: holds no examples; allowed: 1 or more"),
    ("a.csv", "question,answer\n", "a.csv: holds no examples; allowed: 1 or more"),
]  # fmt: skip


def test_values_that_json_can_not_hold_are_refused():
    call = {"name": "clock", "at": date(2024, 1, 1)}  # as tables give them
    rows = [{"messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}]
    with pytest.raises(PoolError, match="the list, row 0: turn 0 has tool_calls that JSON can't hold: Object of type"):
        read_pool(rows)


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files(tmp_path, name, content, message):
    with pytest.raises(PoolError) as caught:
        read_pool(put(tmp_path / name, content))
    said = str(caught.value)
    assert said == message or (message.endswith("*") and said.startswith(message[:-1]))
    assert "\n" not in said


def test_a_broken_gzip_file_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(9999))[:-99])
    with pytest.raises(PoolError, match=r"a\.jsonl\.gz: broken gzip file"):
        read_pool([path, put(tmp_path / "b.jsonl", "{}")])


BAD_ARGUMENTS = [
    ({"limit": 0}, ArgumentError, "limit: found 0; allowed: a whole number of examples, 1 or more"),
    ({"limit": True}, ArgumentError, "limit: found True; allowed: a whole number of examples, 1 or more"),
    ({"seed": -1}, ArgumentError, "seed: found -1; allowed: a whole number from 0 to 2**64 - 1"),
    ({"mapping": "prompt"}, ArgumentError, "mapping: found 'prompt'; allowed: PART=FIELD pairs with commas between, "
     "as in prompt=question,response=answer"),
    ({"mapping": "answer=response"}, ArgumentError,
     "mapping: unknown part 'answer'; allowed: prompt, response, input, system, messages, tools"),
    ({"mapping": "prompt=prompt,response=reply"}, ArgumentError,
     "mapping: no field 'reply' in rows.jsonl; fields found: prompt, response, source"),
    ({"mapping": "prompt=prompt,messages=response"}, ArgumentError,
     "mapping: messages can't be given together with prompt, response or input"),
    ({"split": "train"}, ArgumentError,
     "split: found 'train'; allowed only for a hub id or a folder saved by `datasets` with several splits"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(lines, arguments, error, message):
    with pytest.raises(error) as caught:
        read_pool(lines, **arguments)
    assert str(caught.value) == message


def test_pools_that_are_none(tmp_path, lines):
    table = [
        (str(tmp_path / "none.jsonl"), PoolNotFoundError, r"none\.jsonl: no such file, folder or pattern"),
        ("nowhere/none.jsonl", PoolNotFoundError, r"none\.jsonl: no such file, folder or pattern"),
        (str(tmp_path / "*.csv"), PoolNotFoundError, r"\*\.csv: no file fits this pattern"),
        ([lines, lines], PoolError, r"rows\.jsonl: given twice"),
        ([], PoolError, "found an empty list"),
        (3, ArgumentError, "pool: found int; allowed: a path, a glob"),
        ([{"prompt": "a", "response": "b"}, 3], PoolError, "the list, row 1: found a number; allowed: a dict"),
    ]
    for pool, error, message in table:
        with pytest.raises(error, match=message):
            read_pool(pool)
    assert isinstance(PoolNotFoundError("x"), FileNotFoundError)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoolError, match="a folder that holds no file"):
        read_pool(tmp_path / "empty")


# ---------------------------------------------------------------- ways to name a pool


def shards(folder: Path) -> Path:
    folder.mkdir()
    put(folder / "part-1.jsonl", b"".join(LINES[3:]))
    put(folder / "part-0.jsonl.gz", b"".join(LINES[:3]).removesuffix(b"\n"))
    put(folder / "README.md", "not a shard")
    put(folder / ".part-2.jsonl", "hidden")
    return folder


def test_shards_files_and_globs_are_one_pool(tmp_path):
    folder = shards(tmp_path / "shards")
    whole = read_pool(put(tmp_path / "rows.jsonl", b"".join(LINES)))
    both = [folder / "part-0.jsonl.gz", folder / "part-1.jsonl"]
    for named in (folder, str(folder), both, str(folder / "part-*"), str(folder / "**" / "part-*")):
        pool = read_pool(named)
        assert pool.ids.tolist() == whole.ids.tolist()
        assert pool.strata["file"].names == ["part-0.jsonl.gz", "part-1.jsonl"]
        assert pool.strata["file"].codes.tolist() == [0, 0, 0, 1, 1, 1, 1]
        assert pool.where(2) == "part-0.jsonl.gz, row 2 (line 3)"
        assert pool.where(4) == "part-1.jsonl, row 1 (line 2)"
        pool.write(np.arange(7), tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == b"".join(LINES)  # the missing line end is put in
    assert read_pool(pool) is pool


def test_shards_of_two_containers_or_headers_are_refused(tmp_path):
    lines = put(tmp_path / "a.jsonl", b"".join(LINES))
    records = put(tmp_path / "b.csv", csv_of(ROWS))
    with pytest.raises(PoolError, match=r"a\.jsonl holds jsonl and b\.csv csv; allowed: files of one container"):
        read_pool([lines, records])
    other = put(tmp_path / "c.csv", "prompt,response\na,b\n")
    with pytest.raises(PoolError, match=r"b\.csv has the columns prompt, response, source and c\.csv prompt, response"):
        read_pool([records, other])
    # The same columns, but rows of the one would be nonsense under the other's header.
    for mark in ";\t":
        marked = put(tmp_path / "d.csv", csv_of(ROWS, mark))
        with pytest.raises(PoolError) as caught:
            read_pool([records, marked])
        assert str(caught.value) == (
            f"b.csv has ',' between its fields and d.csv {mark!r}; allowed: the same delimiter in every file"
        )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", b"".join(LINES)),
        ("lines", b"\xef\xbb\xbf" + b"".join(LINES)),
        ("array.jsonl", json.dumps(ROWS)),
        ("array.json", "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False, indent=2)),
        ("array.json.gz", json.dumps(ROWS)),
        ("zipped_without_saying.jsonl", gzip.compress(b"".join(LINES))),
        ("a.csv", csv_of(ROWS)),
        ("a.csv.gz", "\ufeff" + csv_of(ROWS)),
        ("semicolons.csv", csv_of(ROWS, ";")),
        ("a.tsv", csv_of(ROWS, "\t")),
    ],
)
def test_ids_do_not_depend_on_the_container(tmp_path, name, content):
    pool = read_pool(put(tmp_path / name, content))
    expected = read_pool(ROWS)
    assert pool.ids.tolist() == expected.ids.tolist()
    assert pool.strata["source"].names == ["a", "b"]
    assert pool.strata["source"].codes.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert [example.messages for example in pool.examples()] == [example.messages for example in expected.examples()]


def test_datasets_and_folders_saved_by_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(ROWS * 2).shuffle(seed=1).select(range(9))  # with indices of its own
    both = datasets.DatasetDict({"train": data, "test": data.select(range(3))})
    data.save_to_disk(tmp_path / "one", num_shards=3)
    both.save_to_disk(tmp_path / "both")
    expected = read_pool(list(data))
    for pool in (
        read_pool(data),
        read_pool(both, split="train"),
        read_pool(tmp_path / "one"),
        read_pool(tmp_path / "both", split="train"),
        reopen(read_pool(tmp_path / "both", split="train").spec),
    ):
        assert pool.ids.tolist() == expected.ids.tolist()
        assert pool.example(8) == expected.example(8)
        pool.write(np.array([1, 4, 8]), tmp_path / "out.parquet")
        assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [data[row] for row in (1, 4, 8)]
        assert pq.read_schema(tmp_path / "out.parquet").metadata == data.features.arrow_schema.metadata
    with pytest.raises(PoolError, match="one: a folder saved by `datasets` among several paths"):
        read_pool([tmp_path / "one", tmp_path / "both"])
    with pytest.raises(PoolError, match="both: no split was named; allowed: train, test"):
        read_pool(tmp_path / "both")
    with pytest.raises(PoolError, match="split 'dev' asked for; allowed: train, test"):
        read_pool(both, split="dev")
    with pytest.raises(PoolError, match="can't be opened again"):
        reopen(read_pool(data).spec)


def test_hub_ids(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train", "test"])
    pool = read_pool("owner/name:main", split="test")
    assert reopen(pool.spec).ids.tolist() == read_pool(ROWS).ids.tolist()
    assert asked == [("owner/name", "main", "test")] * 2
    with pytest.raises(PoolError, match="owner/name: no split was named; allowed: train, test"):
        read_pool("owner/name")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="needs the package `datasets`") as caught:
        read_pool("owner/name", split="train")
    assert caught.value.hint == "pip install 'lossift[score]'"
    (tmp_path / "owner").mkdir()
    with pytest.raises(PoolNotFoundError, match="no such file"):
        read_pool("owner/name")


# ---------------------------------------------------------------- ids, strata, limit, reopening


def test_ids_are_pinned():
    """A change here makes every loss store of earlier versions one of another pool."""
    row = {"prompt": "Say hé.", "response": "hé"}
    digest = blake2b('[["user","Say hé."],["assistant","hé"]]'.encode(), digest_size=16).digest()
    again = blake2b(digest + bytes([1, 0, 0, 0, 0, 0, 0, 0]), digest_size=8).digest()
    expected = [int.from_bytes(digest[:8], "little"), int.from_bytes(again, "little")]
    assert read_pool([row, row]).ids.tolist() == expected == [13571351779643976580, 13249182672923999845]


def test_ids_see_the_content_alone():
    alpaca = [{"instruction": "Add.", "input": "1 2", "output": "3", "extra": 1}]
    turns = [{"messages": [{"role": "user", "content": "Add.\n\n1 2"}, {"role": "assistant", "content": "3"}]}]
    sharegpt = [{"conversations": [{"from": "human", "value": "Add.\n\n1 2"}, {"from": "gpt", "value": "3"}]}]
    assert read_pool(alpaca).ids == read_pool(turns).ids == read_pool(sharegpt).ids
    assert read_pool(alpaca).ids != read_pool([turns[0] | {"tools": TOOLS}]).ids
    moved = [{"prompt": "ab", "response": "c"}, {"prompt": "a", "response": "bc"}]
    assert len(set(read_pool(moved).ids)) == 2


@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": st.sampled_from("ab"), "response": st.sampled_from("cd"), "note": st.integers(0, 2)}
        ),
        min_size=1,
        max_size=12,
    ).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows)))
)
@settings(max_examples=60, deadline=None)
def test_shuffled_rows_keep_their_ids(both):
    """Repeated contents included: whatever the order, the same id stands for the same whole row."""
    first, second = (
        {int(id_): json.dumps(row, sort_keys=True) for id_, row in zip(read_pool(rows).ids, rows, strict=True)}
        for rows in both
    )
    assert len(first) == len(both[0])
    assert first == second


def test_a_collision_shows_both_rows():
    same_start = [b"8 bytes!" + bytes(8), bytes(16), b"8 bytes!" + b"others.."]
    with pytest.raises(PoolError, match="two different examples have the id 2173657479622038: row 0 and row 2"):
        number(b"".join(same_start), lambda rows: [{} for _ in rows], lambda row: f"row {row}")


def test_lone_surrogates_pass(tmp_path):
    path = put(tmp_path / "a.jsonl", '{"prompt": "\\ud83d", "response": "x", "tag": "\\ud83d"}\n' * 2)
    pool = read_pool(path)
    assert pool.example(0).messages[0].text == "\ud83d"
    pool.write(np.array([0]), tmp_path / "b.json")
    assert read_pool(tmp_path / "b.json").ids[0] in pool.ids
    with pytest.raises(PoolError, match="don't fit a Parquet table"):
        pool.write(np.array([0]), tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()


def test_strata():
    rows = [
        {"prompt": "p", "response": "r", "word": "ba"[i % 2], "n": i % 3, "yes": i > 5, "all": i, "list": [1],
         "float": 0.5, "mixed": [1, "1", None][i % 3], "none": None, **({"late": "x"} if i > 7 else {})}
        for i in range(12)
    ]  # fmt: skip
    strata = read_pool(rows).strata
    assert {field: stratum.names for field, stratum in strata.items()} == {
        "late": ["x"],
        "mixed": ["1"],
        "n": ["0", "1", "2"],
        "word": ["a", "b"],
        "yes": ["false", "true"],
    }
    assert strata["late"].codes.tolist() == [-1] * 8 + [0] * 4
    assert strata["mixed"].codes.tolist() == [0, 0, -1] * 4
    assert strata["word"].codes.tolist() == [1, 0] * 6
    assert strata["word"].codes.dtype == np.int32
    many = [{"prompt": "p", "response": "r", "fits": i % 1000, "many": i % 1001} for i in range(1500)]
    assert list(read_pool(many).strata) == ["fits"]


def test_limit_is_a_part_by_id(tmp_path):
    rows = [{"prompt": str(i), "response": "r", "group": "abc"[i % 3]} for i in range(200)]
    path = put(tmp_path / "rows.json", json.dumps(rows))
    whole, part, other = read_pool(path), read_pool(path, limit=40, seed=7), read_pool(path, limit=40, seed=8)
    assert len(part) == part.n_examples == 40
    assert (np.diff(part.source_rows) > 0).all()
    assert part.ids.tolist() == whole.ids[part.source_rows].tolist()
    assert part.ids.tolist() != other.ids.tolist()
    assert set(part.ids) == set(read_pool(rows[::-1], limit=40, seed=7).ids)
    assert set(read_pool(path, limit=20, seed=7).ids) < set(part.ids)
    assert [part.example(3)] == [whole.example(int(part.source_rows[3]))] == list(part.examples([3]))
    groups = [part.strata["group"].names[code] for code in part.strata["group"].codes]
    assert groups == [rows[row]["group"] for row in part.source_rows]
    part.write(np.array([0, 39]), tmp_path / "out.jsonl")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [rows[part.source_rows[0]], rows[part.source_rows[39]]]
    for again in (reopen(part.spec, part.source_rows), reopen(part.spec)):
        assert again.example(5) == part.example(5)
        assert again.ids.tolist() == part.ids.tolist()
    assert read_pool(path, limit=200).source_rows is None
    assert read_pool(path, limit=999).ids.tolist() == whole.ids.tolist()


def test_reopening_parses_no_row(lines, tmp_path, monkeypatch):
    pool = read_pool(lines)
    spec = json.loads(json.dumps(pool.spec))
    with monkeypatch.context() as patched:
        patched.setattr(JsonLines, "row", None)
        again = reopen(spec)
        again.write(np.array([2]), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == LINES[2]
    assert (again.mapping, again.fingerprint) == (pool.mapping, pool.fingerprint)
    assert again.ids.tolist() == pool.ids.tolist()
    lines.unlink()
    with pytest.raises(PoolNotFoundError):
        reopen(spec)


def test_fingerprint_and_digest_tell_a_changed_file(lines):
    pool = read_pool(lines)
    assert pool.fingerprint["files"] == [
        {"path": str(lines), "size": lines.stat().st_size, "mtime_ns": lines.stat().st_mtime_ns}
    ]
    digest = pool.digest()
    put(lines, lines.read_bytes())
    assert read_pool(lines).digest() == digest
    put(lines, lines.read_bytes().replace(b"say 0", b"say 9"))
    assert read_pool(lines).digest() != digest
    assert read_pool(ROWS).digest() == read_pool(ROWS).digest() != read_pool(ROWS[1:]).digest()


# ---------------------------------------------------------------- writing back, untouched

_SPACES = st.sampled_from(["", " ", "\t", "  "])
_VALUES = st.sampled_from(
    ["1e5", "1E+05", "-0", "1.10", "9" * 5000, "null", "NaN", "[ ]", '[1,{"b" : []}]', '"\\u00e9\\/"', '"\\ud83d"']
)  # fmt: skip
_TEXT = st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False))


@st.composite
def json_objects(draw, spaces=_SPACES) -> str:
    """A row as people write them: odd white space, repeated keys, numbers that a parser would change."""
    pairs = [("prompt", draw(_TEXT)), ("response", draw(_TEXT))]
    pairs += draw(st.lists(st.tuples(st.sampled_from(["x", "x", "y", "é"]), _VALUES | _TEXT), max_size=3))
    space = [draw(spaces) for _ in range(3)]
    inside = ("," + space[0]).join(f'"{key}"{space[1]}:{space[2]}{value}' for key, value in pairs)
    return "{" + space[0] + inside + space[1] + "}"


def some_rows(draw, n: int) -> np.ndarray:
    return np.array(sorted(draw(st.sets(st.integers(0, n - 1)))), np.int64)


@contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_json_lines_come_back_untouched(data):
    rows = data.draw(st.lists(json_objects(), min_size=1, max_size=6))
    ends = [data.draw(st.sampled_from(["\n", "\r\n", " \n"])) for _ in rows]
    blanks = [data.draw(st.sampled_from(["", "\n", " \r\n"])) for _ in rows]
    ends[-1] = data.draw(st.sampled_from(["", "\n", "\r\n", "\r"]))
    expected = [(row + end).encode() for row, end in zip(rows, ends, strict=True)]
    content = b"".join(line + blank.encode() for line, blank in zip(expected, [*blanks[:-1], ""], strict=True))
    gz = data.draw(st.sampled_from(["", ".gz"]))
    with folder() as place:
        pool = read_pool(put(place / f"a.jsonl{gz}", content))
        chosen = some_rows(data.draw, len(rows))
        pool.write(chosen, place / f"b.jsonl{gz}")
        assert unpack(place / f"b.jsonl{gz}") == b"".join(expected[row] for row in chosen)
        pool.write(chosen, place / "b.json")
        elements = [expected[row].strip() for row in chosen]
        assert (place / "b.json").read_bytes() == (b"[\n" + b",\n".join(elements) + b"\n]\n" if elements else b"[]\n")
        if elements:
            read_pool(place / "b.json").write(np.arange(len(elements)), place / "c.jsonl")
            assert (place / "c.jsonl").read_bytes() == b"".join(element + b"\n" for element in elements)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_array_elements_come_back_untouched(data):
    wide = st.sampled_from(["", " ", "\n", "\r\n\t", "\n    "])
    rows = data.draw(st.lists(json_objects(wide), min_size=1, max_size=6))
    space = data.draw(wide)
    content = space + "[" + space + (space + "," + space).join(rows) + space + "]" + space
    with folder() as place:
        pool = read_pool(put(place / "a.json", content))
        chosen = some_rows(data.draw, len(rows))
        pool.write(chosen, place / "b.json.gz")
        elements = [rows[row].encode() for row in chosen]
        expected = b"[\n" + b",\n".join(elements) + b"\n]\n" if elements else b"[]\n"
        assert unpack(place / "b.json.gz") == expected
        pool.write(chosen, place / "b.jsonl")
        lines = (place / "b.jsonl").read_bytes().split(b"\n")[:-1]
        assert len(lines) == len(elements)
        for line, element in zip(lines, elements, strict=True):  # only white space between tokens differs
            assert b"".join(line.split()) == b"".join(element.split())
            if b"9" * 5000 not in line:
                assert repr(json.loads(line)) == repr(json.loads(element))


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_records_come_back_untouched(data):
    value = st.text(st.characters(codec="utf-8") | st.sampled_from(',";\t\n\r" \u2028'), max_size=6)
    rows = data.draw(st.lists(st.tuples(value, value, value), min_size=1, max_size=6))
    delimiter, suffix = data.draw(st.sampled_from([(",", ".csv"), ("\t", ".tsv"), (",", ".csv.gz")]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))

    def record(row) -> bytes:
        buffer = io.StringIO(newline="")
        # the writer leaves a lone carriage return bare, which no reader takes: such a row is quoted
        bare = quoting == csv.QUOTE_MINIMAL and not any("\r" in field for field in row)
        csv.writer(
            buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_MINIMAL if bare else csv.QUOTE_ALL
        ).writerow(row)
        return buffer.getvalue().encode()

    header, records = record(("prompt", "response", "note")), [record(row) for row in rows]
    if data.draw(st.booleans()):
        records[-1] = records[-1].removesuffix(end.encode())
    with folder() as place:
        pool = read_pool(put(place / f"a{suffix}", header + b"".join(records)))
        assert [[turn.text for turn in example.messages] for example in pool.examples()] == [
            [row[0], row[1]] for row in rows
        ]
        chosen = some_rows(data.draw, len(rows))
        pool.write(chosen, place / f"b{suffix}")
        assert unpack(place / f"b{suffix}") == header + b"".join(records[row] for row in chosen)
        pool.write(chosen, place / "b.jsonl")
        back = [json.loads(line) for line in (place / "b.jsonl").read_bytes().split(b"\n")[:-1]]
        assert [tuple(row.values()) for row in back] == [rows[row] for row in chosen]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_parquet_rows_come_back_with_schema_and_codec(data):
    n = data.draw(st.integers(1, 20))
    text = st.lists(st.text(max_size=5), min_size=n, max_size=n)
    schema = pa.schema(
        [
            pa.field("prompt", pa.large_string()),
            pa.field("response", pa.string(), metadata={b"field": b"kept"}),
            pa.field("n", pa.int16()),
            pa.field("day", pa.date32()),
            pa.field("nested", pa.list_(pa.struct([("a", pa.float32()), ("b", pa.string())]))),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
        ],
        metadata={b"owner": "é".encode()},
    )
    table = pa.table(
        {
            "prompt": data.draw(text),
            "response": data.draw(text),
            "n": list(range(n)),
            "day": [date(2024, 1, 1)] * n,
            "nested": [[{"a": 0.1, "b": None}] * (i % 3) for i in range(n)],
            "kind": [None if i % 4 == 0 else "ab"[i % 2] for i in range(n)],
        },
        schema=schema,
    )
    codec = data.draw(st.sampled_from(["zstd", "snappy", "gzip", "none", "lz4", {"prompt": "zstd", "n": "none"}]))
    with folder() as place:
        pq.write_table(table, place / "a.parquet", compression=codec, row_group_size=data.draw(st.integers(1, 21)))
        pool = read_pool(place / "a.parquet")
        chosen = some_rows(data.draw, n)
        pool.write(chosen, place / "b.parquet")
        before, after = pq.ParquetFile(place / "a.parquet"), pq.ParquetFile(place / "b.parquet")
        assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
        assert after.read().equals(before.read().take(chosen))
        if len(chosen):
            columns = [file.metadata.row_group(0) for file in (before, after)]
            codecs = [[group.column(i).compression for i in range(group.num_columns)] for group in columns]
            assert codecs[0] == codecs[1]
        pool.write(chosen, place / "b.jsonl")
        lines = (place / "b.jsonl").read_bytes().split(b"\n")[:-1]
        assert [json.loads(line)["day"] for line in lines] == ["2024-01-01"] * len(chosen)
        assert [json.loads(line)["prompt"] for line in lines] == table["prompt"].take(chosen).to_pylist()


def test_parquet_shards_of_differing_types_are_joined(tmp_path):
    pq.write_table(pa.table({"prompt": ["a"], "response": ["b"], "tag": pa.nulls(1)}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"prompt": ["c"], "response": ["d"], "tag": ["x"]}), tmp_path / "1.parquet")
    read_pool(str(tmp_path / "*.parquet")).write([0, 1], tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"prompt": "a", "response": "b", "tag": None},
        {"prompt": "c", "response": "d", "tag": "x"},
    ]


def test_a_large_csv_field_passes_and_the_limit_stays(tmp_path):
    before = csv.field_size_limit()
    pool = read_pool(put(tmp_path / "a.csv", csv_of([{"prompt": "p", "response": "r" * 300_000}])))
    assert len(pool.example(0).messages[1].text) == 300_000
    assert csv.field_size_limit() == before


OUT = ["out.jsonl", "out.ndjson.gz", "out.json", "out.json.gz", "out.csv", "out.tsv", "out.csv.gz", "out.parquet"]


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "list"])
@pytest.mark.parametrize("name", OUT)
def test_every_container_into_every_other(tmp_path, source, name):
    path = tmp_path / source
    match path.suffix:
        case ".jsonl":
            put(path, b"".join(LINES))
        case ".json":
            put(path, json.dumps(ROWS, indent=1))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
        case suffix:
            put(path, csv_of(ROWS, "\t" if suffix == ".tsv" else ","))
    pool = read_pool(ROWS if source == "list" else path)
    chosen = np.array([0, 3, 6])
    pool.write(chosen, tmp_path / name)
    once = (tmp_path / name).read_bytes()
    back = read_pool(tmp_path / name)
    assert back.ids.tolist() == pool.ids[chosen].tolist()
    assert back.strata["source"].names == ["a", "b"]
    pool.write(chosen, tmp_path / name)
    assert (tmp_path / name).read_bytes() == once  # the same rows are the same file


def test_what_csv_and_json_make_of_other_values(tmp_path):
    rows = [{"prompt": "p", "response": "r", "a": [1, None], "b": None, "d": date(2024, 2, 3), "e": b"\x00", "f": True}]
    pool = read_pool(rows)
    pool.write([0], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == 'prompt,response,a,b,d,e,f\np,r,"[1, null]",,2024-02-03,AA==,true\n'
    pool.write([0], tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == rows[0] | {"d": "2024-02-03", "e": "AA=="}


def test_mixed_types_do_not_fit_parquet(tmp_path):
    pool = read_pool([{"prompt": "p", "response": "r", "x": 1}, {"prompt": "p", "response": "r", "x": "one"}])
    with pytest.raises(PoolError, match="don't fit a Parquet table") as caught:
        pool.write([0, 1], tmp_path / "out.parquet")
    assert caught.value.hint == "choose another extension, such as .jsonl"
    assert list(tmp_path.iterdir()) == []


BAD_WRITES = [
    ([1, 0], "out.jsonl", "rows: allowed: ascending row numbers, each once"),
    ([0, 0], "out.jsonl", "rows: allowed: ascending row numbers, each once"),
    ([0, 7], "out.jsonl", "rows: found 0 to 7; allowed: 0 to 6"),
    ([-1], "out.jsonl", "rows: found -1 to -1; allowed: 0 to 6"),
    ([0], "out.xml", "out: can't tell the container of 'out.xml'; allowed: .jsonl[.gz], .ndjson[.gz], .json[.gz], "
     ".csv[.gz], .tsv[.gz], .parquet"),
    ([0], "out.parquet.gz", "out: can't tell the container of 'out.parquet.gz'; *"),
    ([0], "rows.jsonl", "out: *rows.jsonl is a file of the pool itself; allowed: another name"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "name", "message"), BAD_WRITES)
def test_bad_writes(lines, rows, name, message):
    with pytest.raises(ArgumentError) as caught:
        read_pool(lines).write(rows, lines.parent / name)
    start, star, end = message.partition("*")
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(end)
    assert star or str(caught.value) == message
    assert [file.name for file in lines.parent.iterdir()] == ["rows.jsonl"]


@contextmanager
def files_of_at_most(n_bytes: int):
    """The system refuses to let a file grow: a disk that is full, as far as a writer can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", OUT)
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    big = [{"prompt": f"{i}", "response": os.urandom(300).hex()} for i in range(300)]
    pool = read_pool(put(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in big)))
    out = tmp_path / "out" / name
    out.parent.mkdir()
    out.write_bytes(b"the old one")
    with files_of_at_most(20_000), pytest.raises(LossiftError, match="can't be written") as caught:
        pool.write(np.arange(300), out)
    assert isinstance(caught.value, OSError)
    assert out.read_bytes() == b"the old one"
    assert [file.name for file in out.parent.iterdir()] == [name]


def test_a_message_says_its_text():
    assert Message("user", "Add.", "1 2").text == "Add.\n\n1 2"
    assert Message("user", "Add.").text == "Add."


def test_examples_of_rows_that_are_not_there():
    pool = read_pool([{"prompt": "a", "response": "b"}])
    with pytest.raises(ArgumentError, match="rows: found 0 to 4; allowed: 0 to 0"):
        list(pool.examples(range(5)))
