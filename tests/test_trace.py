"""`trace` and `LossRecorder`: losses while a model trains, resumed to the byte."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="scoring needs the extra [score]")

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from lossift.atomic import DiskError
from lossift.errors import ArgumentError, ModelError, PoolError, StoreError
from lossift.pool import read_pool
from lossift.scoring import LossRecorder, score, tiny_model, trace
from lossift.scoring.encode import Encoding, encode
from lossift.scoring.recipes import RECIPES
from lossift.scoring.record import spaced_steps
from lossift.scoring.saving import disk_errors_told
from lossift.scoring.templates import resolve_template
from lossift.scoring.training import EpochBatches, Examples, Settings, collate, count_steps, plan_epochs
from lossift.store import LossStore
from tiny import some_rows, tiny_llama, tiny_neox, tiny_tokenizer

ROWS = [*some_rows(60), {"prompt": "ask", "completion": ""}]
OPTIONS = {"states": 3, "epochs": 2, "batch_size": 16, "part_rows": 16, "token_budget": 512}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads; on a busy machine they only wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSIFT_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def unbroken(llama, tmp_path_factory):
    return trace(ROWS, llama, tmp_path_factory.mktemp("trace") / "losses", **OPTIONS)


def columns(store):
    return {path.name: path.read_bytes() for path in sorted((store.path / "columns").rglob("*")) if path.is_file()}


def tiny_gpt2(out):
    """Returns the folder of a random GPT-2 of 128 positions: beyond them it fails, and doesn't just score badly."""
    tokenizer = tiny_tokenizer()
    eos = tokenizer.eos_token_id
    shape = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": eos, "eos_token_id": eos}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def interrupt_at(what, count=1):
    """Returns a progress hook that is Ctrl-C the count-th time that `what` is reported."""
    calls = 0

    def hook(step, done, total):
        nonlocal calls
        calls += step == what
        if calls == count:
            raise KeyboardInterrupt

    return hook


# ------------------------------------------------------------------ schedule


@given(n_steps=st.integers(1, 500), n_states=st.integers(1, 30))
def test_steps_are_evenly_spaced_and_inside_the_run(n_steps, n_states):
    steps = spaced_steps(n_steps, n_states)
    assert steps == sorted(set(steps))
    assert all(0 < step < n_steps for step in steps)
    assert set(steps) | {0} == {i * n_steps // (n_states + 1) for i in range(1, n_states + 1)} | {0}


@pytest.mark.parametrize(
    ("n_steps", "n_states", "steps"),
    [
        (6141, None, list(range(500, 6001, 500))),  # MathInstruct: 262,039 examples, three epochs of 128
        (1000, None, [500]),
        (10_001, None, list(range(4500, 10_001, 500))),  # a save limit keeps the newest
        (234, 2, [78, 156]),
    ],
)
def test_the_authors_schedule(n_steps, n_states, steps):
    assert RECIPES["s2l"].steps(n_steps, n_states) == steps


def test_a_run_too_short_for_the_authors_schedule(llama, tmp_path):
    with pytest.raises(ArgumentError, match="s2l records every 500 steps, and this run has 3") as caught:
        trace(ROWS, llama, tmp_path / "losses", recipe="s2l", max_length=128)
    assert caught.value.hint == "give states=12 to space them evenly"


def test_the_authors_recipe():
    recipe = RECIPES["s2l"]
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay, recipe.warmup) == (3, 2e-5, 0, 0.03)
    assert (recipe.batch_size, recipe.max_length, recipe.template, recipe.seed) == (128, 512, "alpaca", 42)


@pytest.mark.parametrize(("n_parameters", "rate"), [(1e5, 1e-3), (2e7, 1e-3), (70e6, 1e-4), (360e6, 5e-5)])
def test_learning_rates_by_size(n_parameters, rate):
    assert RECIPES["default"].learning_rate_for(n_parameters) == rate


# ------------------------------------------------------------------- batches


@given(st.integers(1, 100), st.sampled_from([(1, 1), (8, 4), (32, 8), (6, 3)]), st.integers(0, 3))
def test_an_epoch_holds_every_example_once(n, sizes, epoch):
    batch_size, micro = sizes
    ids = np.arange(n, dtype=np.uint64)
    lengths = np.arange(n) % 7 + 1
    batches = EpochBatches(ids, lengths, batch_size=batch_size, micro_batch_size=micro, seed=1)
    batches.epoch = epoch
    found = list(batches)
    assert len(found) == len(batches)
    assert sorted(i for batch in found for i in batch) == list(range(n))
    assert max(map(len, found)) <= micro
    assert batches.n_steps == -(-len(batches) // (batch_size // micro))


def test_the_order_is_decided_by_seed_and_ids():
    ids = np.random.default_rng(0).integers(0, 2**64, 50, dtype=np.uint64)
    lengths = np.arange(50)

    def order(ids, lengths, seed=0, epoch=0):
        batches = EpochBatches(ids, lengths, batch_size=8, micro_batch_size=4, seed=seed)
        batches.epoch = epoch
        return [ids[batch].tolist() for batch in batches]

    first = order(ids, lengths)
    assert order(ids[::-1], lengths[::-1]) == first
    assert order(ids, lengths, seed=1) != first
    assert order(ids, lengths, epoch=1) != first


def test_training_labels_are_the_supervised_tokens(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    encoded = encode(read_pool(ROWS), Encoding(tokenizer, resolve_template("auto", tokenizer), 128))
    examples = Examples(encoded)
    assert len(examples) == 60
    batch = collate([examples[0], examples[6]])
    for i, row in enumerate((0, 6)):
        tokens, supervised = encoded.row(row)
        labels = np.where(supervised, tokens, -100)
        width = batch["input_ids"].shape[1]
        assert batch["labels"][i].tolist() == labels.tolist() + [-100] * (width - len(labels))
        assert batch["input_ids"][i, : len(tokens)].tolist() == tokens.tolist()
    settings = Settings(epochs=1.5, learning_rate=1e-3, batch_size=16, warmup=0, weight_decay=0, seed=0)
    assert plan_epochs(examples, np.arange(61, dtype=np.uint64), settings, "cpu").micro_batch_size == 8
    assert count_steps(60, settings) == 6


# --------------------------------------------------------------------- trace


def test_a_trace_records_its_states_in_order(unbroken, llama, tmp_path):
    assert unbroken.states == ["base", "step-2", "step-4", "step-6", "final"]
    assert unbroken.is_trace
    losses = [float(np.nanmean(unbroken.column(state))) for state in unbroken.states]
    assert losses == sorted(losses, reverse=True), "it learns"
    assert unbroken.why_invalid(60) == "empty response"
    assert not (unbroken.path / "training").exists()
    # Both ends are what scoring their weights gives.
    scored = score(ROWS, [llama, unbroken.path / "model"], tmp_path / "scored", part_rows=16, token_budget=512)
    for state, name in (("base", llama.name), ("final", "model")):
        np.testing.assert_array_equal(unbroken.column(state), scored.column(name))
    roles = {state.name: state.meta for state in unbroken.declared_states}
    assert roles["base"] == {"trace": True, "role": "base"}
    assert roles["step-2"] == {"trace": True}


# Where to stop: while base is scored, while training before the first state, while a middle state is scored,
# between two states, while the final state is scored.
@pytest.mark.parametrize(
    ("what", "count"),
    [("scoring base", 2), ("training", 1), ("scoring step-4", 1), ("training", 5), ("scoring final", 3)],
)
def test_a_resumed_trace_has_the_same_columns(unbroken, llama, tmp_path, what, count):
    interrupt = interrupt_at(what, count)
    with pytest.raises(KeyboardInterrupt):
        trace(ROWS, llama, tmp_path / "losses", progress=interrupt, **OPTIONS)
    store = trace(ROWS, llama, tmp_path / "losses", **OPTIONS)
    assert columns(store) == columns(unbroken)


def test_an_epoch_cut_short_resumes_too(llama, tmp_path):
    options = OPTIONS | {"epochs": 1.6}
    whole = trace(ROWS, llama, tmp_path / "whole", **options)

    interrupt = interrupt_at("scoring final")

    with pytest.raises(KeyboardInterrupt):
        trace(ROWS, llama, tmp_path / "losses", progress=interrupt, **options)
    assert columns(trace(ROWS, llama, tmp_path / "losses", **options)) == columns(whole)


def test_a_checkpoint_that_was_cut_off_is_not_used(unbroken, llama, tmp_path):
    interrupt = interrupt_at("scoring step-4")

    with pytest.raises(KeyboardInterrupt):
        trace(ROWS, llama, tmp_path / "losses", progress=interrupt, **OPTIONS)
    half = tmp_path / "losses" / "training" / "checkpoint-5"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_st')
    assert columns(trace(ROWS, llama, tmp_path / "losses", **OPTIONS)) == columns(unbroken)


def test_a_finished_trace_returns_at_once(unbroken, llama, monkeypatch):
    module = sys.modules["lossift.scoring.proxy"]
    monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("loaded a model"))
    monkeypatch.setattr("lossift.scoring.column.encode", lambda *_, **__: pytest.fail("tokenised"))
    before, lines = columns(unbroken), []
    store = trace(ROWS, llama, unbroken.path, talk=lines.append, **OPTIONS)
    assert columns(store) == before
    assert lines[-1].endswith("all 5 states are recorded already")


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"epochs": 3}, "epochs=2.*given: epochs=3"),
        ({"learning_rate": 5e-4}, "learning_rate=0.001.*given: learning_rate=0.0005"),
        ({"states": 4}, r"states_at=\[2, 4, 6\].*given: states_at=\[1, 3, 4, 6\]"),
        ({"seed": 7}, "seed=42.*given: seed=7"),
    ],
)
def test_other_options_are_refused(unbroken, llama, changed, shown):
    with pytest.raises(ArgumentError, match=f"holds a run begun with.*{shown}"):
        trace(ROWS, llama, unbroken.path, **(OPTIONS | changed))


def test_another_proxy_is_refused(unbroken, tmp_path):
    other = tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(ArgumentError, match=r"begun with weights='.*given: weights='"):
        trace(ROWS, other, unbroken.path, **OPTIONS)


def test_the_proxy_goes_when_it_is_not_wanted(llama, tmp_path):
    store = trace(ROWS[:8], llama, tmp_path / "losses", states=1, epochs=1, batch_size=4, keep_proxy=False)
    assert store.states == ["base", "step-1", "final"]
    assert sorted(path.name for path in store.path.iterdir()) == [
        "columns",
        "examples.safetensors",
        "store.json",
        "views",
    ]


def test_neox_can_be_traced_and_its_dropout_resumes(tmp_path):
    folder = tiny_neox(tmp_path / "neox", tiny_tokenizer())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    (folder / "config.json").write_text(json.dumps(config))

    interrupt = interrupt_at("scoring step-4")

    whole = trace(ROWS, folder, tmp_path / "whole", **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        trace(ROWS, folder, tmp_path / "losses", progress=interrupt, **OPTIONS)
    assert columns(trace(ROWS, folder, tmp_path / "losses", **OPTIONS)) == columns(whole)


def test_nothing_is_left_behind(llama, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    states = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state(), torch.get_num_threads())
    trace(ROWS[:8], llama, tmp_path / "losses", states=1, epochs=1, batch_size=4, n_threads=2)
    after = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state(), torch.get_num_threads())
    assert states[0] == after[0]
    assert states[1] == after[1]
    assert torch.equal(states[2], after[2])
    assert states[3] == after[3]
    assert [path.name for path in tmp_path.iterdir()] == ["losses"]
    assert capfd.readouterr() == ("", ""), "a library prints nothing"


def test_a_recipe_longer_than_the_model(tmp_path):
    lines = []
    for architecture in (tiny_llama, tiny_gpt2):
        folder = architecture(tmp_path / architecture.__name__)
        out = tmp_path / f"losses-{folder.name}"
        rows = [*ROWS[:8], {"prompt": "What is it? " * 60, "completion": "It is red."}]
        options = {"states": 1, "epochs": 1, "batch_size": 4, "talk": lines.append}
        store = trace(rows, folder, out, recipe="s2l", **options)
        assert f"max_length: 128, all that {folder.name} takes; the recipe's is 512" in lines
        assert store.views["alpaca"].meta["max_length"] == 128
        assert store.valid.all()
        assert store.views["alpaca"].n_tokens[8] == 128
        with pytest.raises(
            ArgumentError, match=f"found 512, allowed are at most 128, the positions that {folder.name}"
        ):
            trace(rows, folder, tmp_path / "other", recipe="s2l", max_length=512, **options)
        with pytest.raises(ArgumentError, match="found 512, allowed are at most 128, the positions that "):
            train(folder, tmp_path / "run", [LossRecorder(rows, tmp_path / "other", max_length=512)])


def test_the_largest_seed(llama, tmp_path):
    options = {"states": 1, "epochs": 1, "batch_size": 4}
    store = trace(ROWS[:8], llama, tmp_path / "losses", seed=2**64 - 1, **options)
    assert store.info["trace"]["seed"] == 2**64 - 1
    assert columns(trace(ROWS[:8], llama, store.path, seed=2**64 - 1, **options))


# ----------------------------------------------------------------- full disks


def system(code, name=None):
    return OSError(code, os.strerror(code), name)


FULL = "free some space and run the same command again: it goes on from what was already written"
LOCKED = "make it writable and run the same command again: what was already written is kept"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (system(errno.ENOSPC), "run: can't be written: No space left on device", FULL),
        (system(errno.ENOSPC, "run/a"), "run/a: can't be written: No space left on device", FULL),
        (system(errno.EROFS), "run: can't be written: Read-only file system", LOCKED),
        (system(errno.EACCES), "run: can't be written: Permission denied", LOCKED),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
         "run: can't be written: No space left on device", FULL),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),
         "run: can't be written: the disk is full or failing", FULL),
        (RuntimeError("[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed writing file data/0: "
                      "file write failed"), "run: can't be written: the disk is full or failing", FULL),
        (RuntimeError("basic_filebuf::xsputn error writing the file: No space left on device"),
         "run: can't be written: No space left on device", FULL),
    ],
)  # fmt: skip
def test_disk_errors_of_libraries(error, message, hint):
    with pytest.raises(DiskError) as caught, disk_errors_told(Path("run")):
        raise error
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    "error",
    [
        system(errno.ENOENT),
        DiskError("ours"),
        SafetensorError("Error while deserializing header: header too large"),
        RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, disk_errors_told(Path("run")):
        raise error
    assert caught.value is error


@contextmanager
def files_of_at_most(n_bytes):
    """The system refuses to let a file grow: a disk that is full, as far as a writer can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The model (0.1 MB) is written by safetensors, the optimizer (0.3 MB) by torch.
@pytest.mark.parametrize("room", [50_000, 200_000])
def test_a_full_disk_is_one_error_and_the_same_call_goes_on(unbroken, llama, tmp_path, room):
    with files_of_at_most(room), pytest.raises(DiskError, match=r"training.*: can't be written: ") as caught:
        trace(ROWS, llama, tmp_path / "losses", **OPTIONS)
    assert caught.value.hint == FULL
    assert columns(trace(ROWS, llama, tmp_path / "losses", **OPTIONS)) == columns(unbroken)


def test_a_full_disk_when_the_proxy_is_kept(unbroken, llama, tmp_path, monkeypatch):
    def full(*_):
        raise system(errno.ENOSPC, "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("lossift.scoring.training.shutil.copy2", full)
        with pytest.raises(DiskError, match=r"model\.safetensors: can't be written: No space left on device"):
            trace(ROWS, llama, tmp_path / "losses", **OPTIONS)
    store = trace(ROWS, llama, tmp_path / "losses", **OPTIONS)
    assert columns(store) == columns(unbroken)
    assert (store.path / "model" / "model.safetensors").exists()
    assert [path.name for path in store.path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_for_a_tiny_model(tmp_path):
    with files_of_at_most(50_000), pytest.raises(DiskError, match="tiny: can't be written: "):
        tiny_llama(tmp_path / "tiny")


def test_nothing_to_train_on(llama, tmp_path):
    with pytest.raises(PoolError, match="none of its examples is valid"):
        trace([{"prompt": "a", "completion": ""}] * 3, llama, tmp_path / "losses")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "s3l"}, "recipe: found 's3l', allowed are default, s2l"),
        ({"epochs": 0}, "epochs: found 0, allowed are numbers above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: found nan"),
        ({"seed": 2**64}, r"seed: found 18446744073709551616, allowed are whole numbers from 0 to 2\*\*64 - 1"),
        ({"seed": -1}, "seed: found -1, allowed are whole numbers from 0"),
        ({"states": 0}, "states: found 0, allowed are whole numbers from 1"),
        ({"dtype": "bfloat16"}, "dtype: found 'bfloat16', a proxy is trained in float32"),
    ],
)
def test_bad_options(llama, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        trace(ROWS, llama, tmp_path / "losses", **options)
    assert not (tmp_path / "losses").exists()


# ------------------------------------------------------------------ recorder


def train(folder, out, callbacks, resume=None):
    """Trains as a user would, on their own data, and returns the final weights."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    encoded = encode(read_pool(ROWS), Encoding(tokenizer, resolve_template("auto", tokenizer), 128))
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=8,
        max_steps=9,
        learning_rate=1e-3,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Examples(encoded),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resume)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_resuming_without_the_saved_weights_is_noticed(tmp_path):
    # transformers loads a checkpoint by the names in its file, and GPT-NeoX's head has another name there.
    folder = tiny_neox(tmp_path / "neox", tiny_tokenizer())
    options = {"states": 2, "part_rows": 16}
    recorder = LossRecorder(ROWS, tmp_path / "losses", progress=interrupt_at("scoring step-6"), **options)
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "run", [recorder])
    with pytest.raises(ModelError, match="checkpoint-6: resuming has not given the model the weights"):
        train(folder, tmp_path / "run", [LossRecorder(ROWS, tmp_path / "losses", **options)], resume=True)


def test_a_recorded_run_is_the_run_without(llama, tmp_path):
    options = {"states": 2, "part_rows": 16}
    recorder = LossRecorder(ROWS, tmp_path / "losses", **options)
    without = train(llama, tmp_path / "a", [])
    recorded = train(llama, tmp_path / "b", [recorder])
    assert all(torch.equal(without[name], recorded[name]) for name in without)
    store = LossStore(tmp_path / "losses")
    assert store.states == ["base", "step-3", "step-6", "final"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]

    shutil.rmtree(tmp_path / "b" / "checkpoint-9")
    broken = LossRecorder(ROWS, tmp_path / "again", progress=interrupt_at("scoring step-6"), **options)
    with pytest.raises(KeyboardInterrupt):
        train(llama, tmp_path / "c", [broken])
    resumed = train(llama, tmp_path / "c", [LossRecorder(ROWS, tmp_path / "again", **options)], resume=True)
    assert all(torch.equal(without[name], resumed[name]) for name in without)
    again = LossStore(tmp_path / "again")
    for state in store.states:
        np.testing.assert_array_equal(again.column(state), store.column(state))

    with pytest.raises(StoreError, match="holds a run from other weights"):
        train(
            tiny_llama(tmp_path / "other", seed=3), tmp_path / "d", [LossRecorder(ROWS, tmp_path / "again", **options)]
        )


# ---------------------------------------------------------------- tiny model


def test_the_same_texts_and_seed_give_the_same_model(tmp_path):
    texts = [row["prompt"] for row in ROWS]
    options = {"vocab_size": 300, "hidden_size": 32, "n_layers": 1, "n_heads": 2}
    first, second = (tiny_model(texts, tmp_path / name, seed=5, **options) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    other = tiny_model(texts, tmp_path / "c", seed=6, **options)
    assert (other / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()
    with pytest.raises(ArgumentError, match="vocab_size: found 100, allowed are whole numbers from 257"):
        tiny_model(texts, tmp_path / "d", vocab_size=100)
    with pytest.raises(ArgumentError, match="hidden_size: found 30"):
        tiny_model(texts, tmp_path / "d", hidden_size=30)
