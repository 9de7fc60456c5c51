"""The loss store: layout, refusals, and that no crash loses or fakes a loss."""

import json

import numpy as np
import pytest
import safetensors.numpy

import lossift
from lossift.atomic import DiskError, replacing
from lossift.errors import ArgumentError, StoreError
from lossift.reasons import Reason
from lossift.store import LossStore

N = 10
META = {"weights": "aaaa", "dtype": "float32"}


@pytest.fixture
def pool_file(tmp_path):
    path = tmp_path / "pool.jsonl"
    rows = [{"prompt": f"p{i}", "response": f"r{i}", "source": "ab"[i % 2]} for i in range(N)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def store(tmp_path, pool_file):
    store = LossStore.create(tmp_path / "losses", lossift.read_pool(pool_file))
    why = np.zeros(N, np.uint8)
    why[3] = Reason.EMPTY_RESPONSE
    ones = np.ones(N, np.int32)
    store.add_view("chat", n_supervised=ones, n_tokens=3 * ones, why_invalid=why, meta={"tokenizer": "t"})
    return store


def fill(store, state, losses, *, step=None, meta=META, part_rows=4):
    store.add_state(state, step=step)
    writer = store.writer(state, "chat", meta=meta, part_rows=part_rows)
    for start, stop in writer.missing:
        part = np.asarray(losses[start:stop], np.float32)
        why = np.where(np.isfinite(part), Reason.VALID, Reason.NON_FINITE_LOSS)
        writer.write_part(start, stop, part, why.astype(np.uint8))
    writer.seal()
    return writer


def test_layout_is_read_by_a_stranger(store):
    fill(store, "step-500", np.arange(N), step=500)
    fill(store, "base", np.arange(N) + 1, step=0)
    files = sorted(str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file())
    assert files == [
        "columns/chat/0000-base.safetensors",
        "columns/chat/0500-step-500.safetensors",
        "examples.safetensors",
        "store.json",
        "views/chat.safetensors",
    ]
    examples = safetensors.numpy.load_file(store.path / "examples.safetensors")
    assert examples["id"].dtype == np.uint64
    assert examples["stratum.source"].tolist() == [0, 1] * 5
    view = safetensors.numpy.load_file(store.path / "views/chat.safetensors")
    assert {k: str(v.dtype) for k, v in view.items()} == {
        "n_supervised": "int32",
        "n_tokens": "int32",
        "why_invalid": "uint8",
    }
    column = safetensors.numpy.load_file(store.path / "columns/chat/0000-base.safetensors")
    assert column["loss"].dtype == np.float32
    assert np.isnan(column["loss"][3])
    assert column["why_invalid"][3] == Reason.EMPTY_RESPONSE


def test_reading(store):
    fill(store, "final", np.r_[np.nan, np.arange(1, N)], step=9)
    fill(store, "base", np.arange(N) + 1, step=0)
    again = lossift.open(store.path)
    assert again.n_examples == N
    assert again.states == ["base", "final"]
    assert again.column("base").dtype == np.float32
    assert not again.column("base").flags.writeable
    assert again.column("base@chat#loss")[4] == 5
    assert again.full_name("final") == "final@chat#loss"
    assert again.valid.tolist() == [False, True, True, False] + [True] * 6
    assert again.why_invalid(0) == "non-finite loss"
    assert again.why_invalid(3) == "empty response"
    assert again.why_invalid(4) is None
    assert again.pool().n_examples == N


@pytest.mark.parametrize("name", ["nothing", "base@other", "nothing@chat"])
def test_missing_state_says_how_to_score_it(store, name):
    fill(store, "base", np.arange(N))
    with pytest.raises(StoreError, match="states with losses: base") as caught:
        store.column(name)
    assert "lossift score POOL --model" in caught.value.hint


def test_missing_quantity(store):
    fill(store, "base", np.arange(N))
    with pytest.raises(StoreError, match="no quantity 'loss_sum'; there are: loss"):
        store.column("base#loss_sum")


def test_parts_survive_and_equal_columns_are_equal_files(store, tmp_path, pool_file):
    losses = np.random.default_rng(0).random(N).astype(np.float32)
    fill(store, "base", losses)
    other = LossStore.create(tmp_path / "other", lossift.read_pool(pool_file))
    view = store.views["chat"]
    other.add_view(
        "chat", n_supervised=view.n_supervised, n_tokens=view.n_tokens, why_invalid=view.why_invalid, meta=view.meta
    )
    other.add_state("base")
    no_why = np.zeros(N, np.uint8)
    writer = other.writer("base", "chat", meta=META, part_rows=4)
    writer.write_part(4, 8, losses[4:8], no_why[4:8])
    with pytest.raises(StoreError, match="2 parts are missing"):
        writer.seal()
    # A crash here; the next run finds one part done and a torn temporary file.
    parts = other.path / "columns/chat/0000-base.parts"
    (parts / ".000000000000.tmp").write_bytes(b"torn")
    writer = lossift.open(other.path).writer("base", "chat", meta=META, part_rows=4)
    assert writer.missing == [(0, 4), (8, 10)]
    for start, stop in writer.missing:
        writer.write_part(start, stop, losses[start:stop], no_why[start:stop])
    writer.seal()
    assert not parts.exists()
    name = "columns/chat/0000-base.safetensors"
    assert (other.path / name).read_bytes() == (store.path / name).read_bytes()


def test_parts_of_other_weights_are_discarded(store):
    store.add_state("base")
    writer = store.writer("base", "chat", meta=META, part_rows=4)
    writer.write_part(0, 4, np.ones(4, np.float32), np.zeros(4, np.uint8))
    writer = store.writer("base", "chat", meta=META | {"weights": "bbbb"}, part_rows=4)
    assert writer.missing == [(0, 4), (4, 8), (8, 10)]


def test_sealed_column_of_other_weights_is_refused(store):
    fill(store, "base", np.arange(N))
    with pytest.raises(StoreError, match=r"holds losses of other weights: weights: there 'aaaa', given 'bbbb'"):
        store.writer("base", "chat", meta=META | {"weights": "bbbb"}, part_rows=4)
    assert store.writer("base", "chat", meta=META, part_rows=4).missing == []


def test_part_of_other_rows_is_refused(store):
    store.add_state("base")
    with pytest.raises(ArgumentError, match="found rows 0 to 5, parts are 4 rows long"):
        store.writer("base", "chat", meta=META, part_rows=4).write_part(0, 5, np.ones(5, np.float32), np.zeros(5))


def test_another_pool_is_refused_with_both_fingerprints(store, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "x", "response": "y"}\n')
    with pytest.raises(StoreError, match=r"another pool: pool.jsonl, 10 examples, digest \w+; given: other.jsonl, 1 "):
        LossStore.create(store.path, lossift.read_pool(other))


def test_changed_pool_is_refused_and_touched_pool_is_not(store, pool_file):
    content = pool_file.read_bytes()
    pool_file.write_bytes(content)  # new modification time, same bytes
    assert lossift.open(store.path).pool().n_examples == N
    pool_file.write_bytes(content.replace(b"p3", b"P3"))
    with pytest.raises(StoreError, match=r"has changed since it was scored: .* holds digest \w+, found \w+"):
        lossift.open(store.path).pool()


def test_another_view_of_the_same_name_is_refused(store):
    view = store.views["chat"]
    arrays = {"n_supervised": view.n_supervised, "n_tokens": view.n_tokens, "why_invalid": view.why_invalid}
    assert store.add_view("chat", **arrays, meta={"tokenizer": "t"}).meta == {"tokenizer": "t"}
    with pytest.raises(StoreError, match="view 'chat' was made differently: tokenizer: there 't', given 'u'"):
        store.add_view("chat", **arrays, meta={"tokenizer": "u"})


def test_another_state_of_the_same_name_is_refused(store):
    store.add_state("base", step=0, meta={"model": "a"})
    with pytest.raises(StoreError, match=r"state 'base' is another one here: meta: there \{'model': 'a'\}"):
        store.add_state("base", step=0, meta={"model": "b"})


def test_not_a_store(tmp_path):
    with pytest.raises(StoreError, match="there is no such loss store"):
        lossift.open(tmp_path / "nowhere")
    (tmp_path / "data.jsonl").write_text("{}")
    with pytest.raises(StoreError, match="is a file, not a loss store"):
        lossift.open(tmp_path / "data.jsonl")
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(StoreError, match=r"is not a loss store: it has no store\.json"):
        lossift.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(StoreError, match="can't be read"):
        lossift.open(tmp_path)
    (tmp_path / "store.json").write_text('{"format": "lossift", "version": 99}')
    with pytest.raises(StoreError, match="has format version 99, this lossift reads version 1"):
        lossift.open(tmp_path)
    (tmp_path / "store.json").write_text('{"format": "lossift", "version": 1, "pool": {}, "states": [], "info": {}}')
    with pytest.raises(StoreError, match="lacks n_examples, views"):
        lossift.open(tmp_path)


def test_strings_that_utf8_can_not_hold(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(f'{{"prompt": "p{i}", "response": "r", "source": "\\ud80{i % 2}"}}\n' for i in range(4)))
    store = LossStore.create(tmp_path / "losses", lossift.read_pool(path))
    assert lossift.open(store.path).strata["source"].names == ["\ud800", "\ud801"]


def test_states_with_a_step_are_in_step_order(store):
    for name, step in (("base", None), ("checkpoint-100", 100), ("checkpoint-1000", 1000), ("checkpoint-500", 500)):
        fill(store, name, np.arange(N), step=step)
    assert store.states == ["base", "checkpoint-100", "checkpoint-500", "checkpoint-1000"]


def test_a_pool_that_no_longer_parses_has_changed(tmp_path):
    path = tmp_path / "pool.json"
    path.write_text('[{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]')
    store = LossStore.create(tmp_path / "losses", lossift.read_pool(path))
    path.write_text('[{"prompt": "a", "resp')
    with pytest.raises(StoreError, match=r"has changed since it was scored: .* holds digest \w+, found \w+"):
        store.pool()


def test_foreign_folder_is_not_written_into(tmp_path, pool_file):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is there already and is not a loss store"):
        LossStore.create(tmp_path / "mine", lossift.read_pool(pool_file))


def test_torn_column_is_an_error(store):
    fill(store, "base", np.arange(N))
    path = store.path / "columns/chat/0000-base.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=r"0000-base\.safetensors: is missing or broken"):
        store.column("base")


def test_nothing_stands_under_the_final_name_after_a_failure(tmp_path):
    target = tmp_path / "file"

    def fail_halfway():
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_what_was_written(store):
    # /dev/full is a disk with no space left.
    fill(store, "base", np.arange(N))
    before = sorted(store.path.rglob("*"))

    def write_to_full_disk():
        with replacing(store.path / "more") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x" * 10_000)

    with pytest.raises(DiskError, match="No space left on device") as caught:
        write_to_full_disk()
    assert "free some space" in caught.value.hint
    assert sorted(store.path.rglob("*")) == before
