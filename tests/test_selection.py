"""The selection as a value: reasons, counts, manifest, and rows written back untouched."""

import json

import numpy as np
import pytest

import lossift
from lossift.errors import ArgumentError, StoreError
from lossift.store import LossStore

N = 40


@pytest.fixture
def scored(tmp_path):
    """A store of a pool of N examples with the states base, middle and final."""
    pool_file = tmp_path / "pool.jsonl"
    rows = [{"prompt": f"p{i}", "response": f"r{i}", "source": "abc"[i % 3]} for i in range(N)]
    rows = [row | ({"lang": "de" if i % 2 else "fr"} if i % 5 else {}) for i, row in enumerate(rows)]
    pool_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = LossStore.create(tmp_path / "losses", lossift.read_pool(pool_file))
    ones = np.ones(N, np.int32)
    why = np.zeros(N, np.uint8)
    why[7] = 1
    store.add_view("chat", n_supervised=ones, n_tokens=ones, why_invalid=why, meta={})
    rng = np.random.default_rng(0)
    for step, state in ((0, "base"), (5, "middle"), (9, "final")):
        store.add_state(state, step=step)
        writer = store.writer(state, "chat", meta={"weights": state, "dtype": "float32"}, part_rows=N)
        loss = (rng.random(N) + 3 - step / 4).astype(np.float32)
        writer.write_part(0, N, loss, np.zeros(N, np.uint8))
        writer.seal()
    return store


def test_why_and_counts(scored):
    chosen = lossift.select(scored, "learnability", budget="25%")
    assert len(chosen.rows) == 10
    assert chosen.counts == {"pool": 40, "chosen": 10, "not_chosen": 29, "invalid": {"empty response": 1}}
    why = chosen.why(row=7)
    assert (why["chosen"], why["because"]) == (False, "invalid: empty response")
    best = int(np.nanargmax(chosen.scores))
    why = chosen.why(id=int(scored.ids[best]))
    assert why["row"] == best
    assert why["chosen"] is True
    assert set(why["losses"]) == {"base", "final"}
    assert why["because"] == (
        "of the 39 examples of the pool, 10 are chosen, the highest scores first; this one ranks 1"
    )
    json.dumps(why)
    for arguments in ({}, {"row": 1, "id": 2}, {"row": N}, {"id": 1}, {"id": -1}, {"id": 2**64}):
        with pytest.raises(ArgumentError):
            chosen.why(**arguments)


def test_why_of_a_cluster(scored):
    chosen = lossift.select(scored, budget=9, by="source", states=["base", "middle", "final"], n_clusters=4)
    why = chosen.why(row=int(chosen.rows[0]))
    assert why["stratum"] in {"a", "b", "c"}
    assert why["cluster"] == chosen.clusters[chosen.rows[0]]
    assert why["quota"] == why["drawn"] > 0
    assert "by keyed id; this one is among them" in why["because"]
    assert sum(cell.drawn for cell in chosen.quotas) == 9


def test_write_and_manifest(scored, tmp_path):
    chosen = lossift.select(scored, budget=9, by="source", states=["base", "middle"], n_clusters=4)
    manifest_path = chosen.write(tmp_path / "subset.jsonl")
    lines = (tmp_path / "pool.jsonl").read_bytes().splitlines(keepends=True)
    assert (tmp_path / "subset.jsonl").read_bytes() == b"".join(lines[row] for row in chosen.rows)
    assert manifest_path == tmp_path / "subset.manifest.json"
    manifest = json.loads(manifest_path.read_text())
    assert manifest["parameters"]["states"] == ["base", "middle"]
    assert set(manifest["losses"]["columns"]) == {"base@chat#loss", "middle@chat#loss"}
    counts = manifest["counts"]
    assert counts["pool"] == counts["chosen"] + counts["not_chosen"] + sum(counts["invalid"].values())
    assert sum(cell["quota"] for cell in manifest["quotas"]) == 9
    repeated = lossift.select(
        manifest["losses"]["store"],
        **{k: v for k, v in manifest["parameters"].items() if v is not None},
    )
    assert repeated.manifest["result_digest"] == manifest["result_digest"]


def test_trace_is_called_a_proxy(scored):
    scored.update_info(trace=True)
    chosen = lossift.select(scored.path, "learnability", budget=5)
    assert chosen.method == chosen.manifest["method"] == "proxy learnability"
    assert "the states are a proxy's" in chosen.summary()
    # Of a trace, trajectories are the states strictly between the first and the last step.
    assert lossift.select(scored.path, budget=5, n_clusters=3).columns == ["middle"]


def test_missing_states_say_how_to_score_them(scored):
    with pytest.raises(StoreError, match="no losses of state 'ref'; states with losses: base, middle, final") as caught:
        lossift.select(scored, "learnability", budget=5, ref="ref")
    assert "lossift score POOL --model ref=PATH" in caught.value.hint
    with pytest.raises(ArgumentError, match=r"by: found 'domain', stratum columns of .*: lang, source"):
        lossift.select(scored, budget=5, by="domain")


def test_changed_pool_is_refused_before_anything_is_written(scored, tmp_path):
    chosen = lossift.select(scored, budget=5, n_clusters=3)
    (tmp_path / "pool.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * N)
    with pytest.raises(StoreError, match="has changed since it was scored"):
        chosen.write(tmp_path / "subset.jsonl")
    assert not list(tmp_path.glob("subset*"))


def test_array_needs_its_pool(tmp_path, scored):
    losses = np.random.default_rng(0).random((N, 3)).astype(np.float32)
    chosen = lossift.select(losses, budget=5, n_clusters=3)
    with pytest.raises(ArgumentError, match="the losses came as an array"):
        chosen.write(tmp_path / "subset.jsonl")
    chosen.write(tmp_path / "subset.jsonl", pool=tmp_path / "pool.jsonl")
    assert len((tmp_path / "subset.jsonl").read_text().splitlines()) == 5
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "a", "response": "b"}\n' * N)
    with pytest.raises(StoreError, match="holds the losses of another pool"):
        lossift.select(scored, budget=5, n_clusters=3).write(tmp_path / "foreign.jsonl", pool=other)
    assert not list(tmp_path.glob("foreign*"))
    other.write_text('{"prompt": "a", "response": "b"}\n')
    with pytest.raises(ArgumentError, match="found 1 examples, the losses are of 40"):
        chosen.write(tmp_path / "subset.jsonl", pool=other)


@pytest.mark.parametrize("method", ["s2l", "learnability", "random"])
def test_row_numbers_are_the_ids_of_an_array_without(method):
    losses = np.random.default_rng(0).random((70_000, 3)).astype(np.float32)
    options = {"budget": 50, "by": np.arange(70_000) % 3} | ({"n_clusters": 3} if method == "s2l" else {})
    bare = lossift.select(losses, method, **options)
    given = lossift.select(losses, method, ids=np.arange(70_000), **options)
    assert bare.ids.tolist() == given.ids.tolist() == bare.rows.tolist()
    assert bare.manifest["losses"] == given.manifest["losses"]
    assert bare.manifest["result_digest"] == given.manifest["result_digest"]
    assert bare.why(id=69_999) == given.why(id=69_999) == bare.why(row=69_999)
    for chosen in (bare, given):
        with pytest.raises(ArgumentError, match="id: no example has the id 70000"):
            chosen.why(id=70_000)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("s2l", {"n_clusters": 2}),
        ("s2l", {"n_clusters": 2, "preset": "released"}),
        ("learnability", {}),
        ("random", {}),
    ],
)
def test_examples_without_a_label_are_a_stratum_of_their_own(scored, method, options):
    chosen = lossift.select(scored, method, budget=12, by="lang", **options)
    codes = scored.strata["lang"].codes
    assert set(codes[::5].tolist()) == {-1}
    rows_of = {name: set(np.flatnonzero(codes == code)) for code, name in ((0, "de"), (1, "fr"), (-1, "(missing)"))}
    totals = {name: [0, 0] for name in rows_of}
    for cell in chosen.quotas:
        totals[cell.stratum][0] += cell.size
        totals[cell.stratum][1] += cell.drawn
    for name, rows in rows_of.items():
        # Row 7 is invalid.
        assert totals[name] == [len(rows - {7}), len(rows & set(chosen.rows.tolist()))] == [len(rows - {7}), 4]
    for row in (0, 1, 2):
        assert chosen.why(row=row)["stratum"] == ["(missing)", "de", "fr"][row]
    if method == "learnability":
        cell = [row for row in rows_of["(missing)"] if chosen.scores[row] > chosen.scores[5]]
        assert chosen.why(row=5)["because"].endswith(f"this one ranks {len(cell) + 1}")


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint64", "bool"])
def test_labels_that_are_numbers_are_compared_as_text(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(-128 if dtype == "int8" else 0, 127, size=200).astype(dtype)
    losses = rng.random((200, 3)).astype(np.float32)
    numbers = lossift.select(losses, "random", budget=150, by=labels)
    text = lossift.select(losses, "random", budget=150, by=labels.astype(str))
    assert numbers.quotas == text.quotas
    assert [cell.stratum for cell in numbers.quotas] == sorted(set(labels.astype(str)))
    assert numbers.manifest["parameters"] == text.manifest["parameters"]
    assert numbers.rows.tolist() == text.rows.tolist()
    assert numbers.summary() == text.summary()


@pytest.mark.parametrize("least", [10**6, -(2**63), 2**63])
def test_labels_that_are_large_numbers(least):
    labels = np.array([least, least + 5] * 10, dtype=np.uint64 if least > 2**62 else np.int64)
    chosen = lossift.select(np.ones((20, 2)), "random", budget=4, by=labels)
    assert [(cell.stratum, cell.drawn) for cell in chosen.quotas] == sorted([(str(least), 2), (str(least + 5), 2)])


def test_summary_fits_a_terminal(scored):
    for method in ("s2l", "learnability", "random"):
        options = {"n_clusters": 4} if method == "s2l" else {}
        chosen = lossift.select(scored, method, budget=9, by="source", **options)
        assert all(len(line) <= 80 for line in chosen.summary().splitlines()), chosen.summary()
        assert "9 of 40 examples chosen (22.5 %)" in chosen.summary()


def test_budget_below_the_number_of_clusters_warns(scored):
    chosen = lossift.select(scored, budget=2, n_clusters=5)
    assert "3 of 5 clusters got nothing: too small a budget" in chosen.summary()
    chosen = lossift.select(scored, budget=2, by="source", n_clusters=5)
    assert "cells (stratum x cluster) got nothing" in chosen.summary()
