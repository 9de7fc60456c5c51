"""`score`: columns of losses under models that exist, resumed to the byte, and what bad input gets."""

from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers", reason="scoring needs the extra [score]")

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen3Config,
)

from lossift.errors import ArgumentError, ModelError, StoreError
from lossift.pool import read_pool
from lossift.scoring import score
from lossift.scoring.encode import Encoding, encode
from lossift.scoring.models import (
    _what_counts,
    files_digest,
    find_states,
    load_model,
    resolve_length,
    state_digest,
)
from lossift.scoring.templates import resolve_template
from tiny import losses_one_by_one, some_rows, tiny_llama, tiny_neox, tiny_tokenizer

ROWS = [*some_rows(40), {"prompt": "ask", "completion": ""}, {"prompt": "What?", "completion": "because " * 200}]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing from threads; on a busy machine they only wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSIFT_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training run's folder: two checkpoints of one model."""
    folder = tmp_path_factory.mktemp("run")
    for step in (1000, 200):
        tiny_llama(folder / f"checkpoint-{step}", seed=step)
    return folder


@pytest.fixture(scope="module")
def llama(run):
    return run / "checkpoint-200"


@pytest.fixture(scope="module")
def unbroken(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "losses"
    return score(ROWS, [run], out, part_rows=8, token_budget=512)


def columns(store):
    return {path.name: path.read_bytes() for path in sorted((store.path / "columns").rglob("*")) if path.is_file()}


def test_losses_are_those_of_batch_1(unbroken, llama):
    assert unbroken.states == ["checkpoint-200", "checkpoint-1000"]  # by step, not by name
    pool = read_pool(ROWS)
    tokenizer = tiny_tokenizer()
    encoded = encode(pool, Encoding(tokenizer, resolve_template("plain", tokenizer), 128))
    expected = np.array(losses_one_by_one(AutoModelForCausalLM.from_pretrained(llama), encoded))
    loss = unbroken.column("checkpoint-200")
    np.testing.assert_allclose(loss[:40], expected[:40], rtol=1e-5)
    assert np.isnan(loss[40:]).all()
    assert unbroken.why_invalid(40) == "empty response"
    assert unbroken.why_invalid(41) == "truncated response"
    view = unbroken.views["plain"]
    np.testing.assert_array_equal(view.n_supervised, encoded.n_supervised)
    assert view.n_tokens[41] > 128


def test_the_column_says_how_it_was_made(unbroken):
    meta = unbroken.column_meta("checkpoint-200")
    assert meta["step"] == 200
    assert meta["dtype"] == "float32"
    assert meta["token_budget"] == 512
    assert set(meta) >= {"attention", "device", "software", "state", "view", "weights"}
    assert str(unbroken.path) not in json.dumps(meta)


@pytest.mark.parametrize("stop_at", [1, 4, 6, 9])
def test_a_resumed_column_is_the_same_file(unbroken, run, tmp_path, stop_at):
    calls = 0

    def interrupt(what, done, total):
        nonlocal calls
        calls += what.startswith("scoring")
        if calls == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(ROWS, [run], tmp_path / "losses", part_rows=8, token_budget=512, progress=interrupt)
    store = score(ROWS, [run], tmp_path / "losses", part_rows=8, token_budget=512)
    assert columns(store) == columns(unbroken)


def test_parts_of_other_weights_are_scored_again(unbroken, run, tmp_path):
    def interrupt(what, done, total):
        if what.startswith("scoring") and done > total / 2:
            raise KeyboardInterrupt

    moving = tmp_path / "run" / "checkpoint-200"
    shutil.copytree(run / "checkpoint-1000", moving)
    options = {"part_rows": 8, "token_budget": 512}
    with pytest.raises(KeyboardInterrupt):
        score(ROWS, moving, tmp_path / "losses", progress=interrupt, **options)
    shutil.rmtree(moving)
    shutil.copytree(run / "checkpoint-200", moving)
    store = score(ROWS, moving, tmp_path / "losses", **options)
    assert columns(store).items() <= columns(unbroken).items()


def test_a_finished_job_loads_no_model_and_no_token(run, tmp_path, monkeypatch):
    store = score(ROWS, [run], tmp_path / "losses", part_rows=8)
    before = columns(store)
    module = sys.modules["lossift.scoring.score"]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("loaded a model"))
    monkeypatch.setattr("lossift.scoring.column.encode", lambda *_, **__: pytest.fail("tokenised"))
    lines = []
    store = score(ROWS, [run], tmp_path / "losses", part_rows=8, talk=lines.append)
    assert columns(store) == before
    assert "checkpoint-200: scored already" in lines


def test_states_are_added_to_a_store(run, tmp_path):
    first = score(ROWS, run / "checkpoint-1000", tmp_path / "losses", part_rows=16)
    assert first.states == ["checkpoint-1000"]
    both = score(ROWS, [run / "checkpoint-200", f"late={run / 'checkpoint-1000'}"], tmp_path / "losses")
    assert set(both.states) == {"checkpoint-200", "checkpoint-1000", "late"}
    np.testing.assert_array_equal(both.column("late"), both.column("checkpoint-1000"))


def test_talk_says_what_was_done(run, tmp_path):
    lines = []
    score(ROWS, [run], tmp_path / "losses", talk=lines.append)
    said = "\n".join(lines)
    for part in (
        "42 examples, prompt/completion: prompt=prompt, response=completion",
        "view plain: template plain, at most 128 tokens",
        r"'### Instruction:\n{prompt}",
        "2 examples are invalid: 1 empty response, 1 truncated response",
        "checkpoint-200: ",
        " a second)",
    ):
        assert part in said


def test_threads_are_asked_for_and_put_back(llama, tmp_path):
    used = []
    before = torch.get_num_threads()
    for asked, expected in ((2, 2), (None, 1)):  # LOSSIFT_NUM_THREADS is 1 here
        hook = lambda *_: used.append(torch.get_num_threads())  # noqa: E731
        score(ROWS, llama, tmp_path / str(asked), n_threads=asked, progress=hook)
        assert used[-1] == expected
        assert torch.get_num_threads() == before


def test_weights_that_are_missing_are_not_made_up(llama, tmp_path):
    import safetensors.torch

    folder = tmp_path / "gappy"
    shutil.copytree(llama, folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights: model\.layers\.1\.mlp\.up_proj\.weight"):
        score(ROWS, folder, tmp_path / "losses")


def test_keep_scores_what_is_left(llama, tmp_path):
    store = score(ROWS, llama, tmp_path / "losses", truncated="keep")
    assert store.views["plain"].n_tokens[41] == 128
    assert np.isfinite(store.column("checkpoint-200")[41])


# --------------------------------------------------------------------- names


def test_the_shortest_context_decides(llama, tmp_path):
    long = tiny_llama(tmp_path / "long", max_length=256)
    models = [long, llama]
    assert score(ROWS, models, tmp_path / "losses").views["plain"].meta["max_length"] == 128
    with pytest.raises(ArgumentError, match="found 200, allowed are at most 128, the positions that checkpoint-200"):
        score(ROWS, models, tmp_path / "other", max_length=200)
    config = SimpleNamespace(get_text_config=SimpleNamespace)  # says nothing of positions, as those of Mamba
    assert resolve_length(10**6, config, SimpleNamespace(model_max_length=512), "m") == 10**6
    assert resolve_length(None, config, SimpleNamespace(model_max_length=512), "m") == 512
    with pytest.raises(ArgumentError, match="max_length: m doesn't say how many tokens it takes, so give max_length"):
        resolve_length(None, config, SimpleNamespace(model_max_length=int(1e30)), "m")


def test_parts_that_a_crash_after_sealing_left_are_removed(run, tmp_path):
    store = score(ROWS, run, tmp_path / "losses", part_rows=8)
    sealed = columns(store)
    column = next((store.path / "columns").rglob("*.safetensors"))
    left = column.with_suffix(".parts")
    left.mkdir()
    (left / "000000000000-000000000008.safetensors").write_bytes(b"whatever")
    score(ROWS, run, tmp_path / "losses", part_rows=16)
    assert columns(store) == sealed


def test_names_of_states(run, tmp_path):
    for name in ("a b", "run@2", "step-30"):
        shutil.copytree(run / "checkpoint-200", tmp_path / name)
    found = find_states([tmp_path / "a b", f"mine={tmp_path / 'run@2'}", tmp_path / "run@2", tmp_path / "step-30"])
    assert [(s.name, s.step) for s in found] == [("a-b", None), ("mine", None), ("run-2", None), ("step-30", 30)]
    assert [s.name for s in find_states(f"{run}/checkpoint-*")] == ["checkpoint-200", "checkpoint-1000"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["base", "checkpoint-100", "checkpoint-1000", "checkpoint-500"],  # as a shell's glob sorts them
         ["base", "checkpoint-100", "checkpoint-500", "checkpoint-1000"]),
        (["checkpoint-500", "base", "checkpoint-100", "last"], ["checkpoint-100", "base", "checkpoint-500", "last"]),
        (["late=checkpoint-1000", "early=checkpoint-100"], ["early", "late"]),
        (["last", "base"], ["last", "base"]),
    ],
)  # fmt: skip
def test_states_with_a_step_are_in_step_order(tmp_path, given, names):
    folders = {}
    for model in given:
        name = model.rpartition("=")[2]
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "config.json").write_text("{}")
        (folders[name] / "model.safetensors").touch()
    models = [f"{named}{equals}{folders[name]}" for named, equals, name in (model.rpartition("=") for model in given)]
    assert [source.name for source in find_states(models)] == names


# ------------------------------------------------------------------- digests


def edited(folder, target, **changes):
    """Returns a copy of a model folder with other values in its config."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}, False),
        ({"rms_norm_eps": 0.1}, False),
        ({"_name_or_path": "elsewhere", "transformers_version": "9.9", "dtype": "bfloat16"}, True),
        ({"torch_dtype": "float16", "use_cache": False, "architectures": None, "pad_token_id": 3}, True),
    ],
)
def test_a_digest_is_of_weights_and_config(llama, tmp_path, changes, same):
    one, other = edited(llama, tmp_path / "one"), edited(llama, tmp_path / "other", **changes)
    sources = find_states([one, other])
    digests = [files_digest(source) for source in sources]
    assert (digests[0] == digests[1]) == same
    digests = [state_digest(load_model(source, dtype="float32", device="cpu")) for source in sources]
    assert (digests[0] == digests[1]) == same
    score(ROWS, f"m={one}", tmp_path / "losses")
    if same:
        lines = []
        score(ROWS, f"m={other}", tmp_path / "losses", talk=lines.append)
        assert lines[-1] == "m: scored already"
    else:
        with pytest.raises(StoreError, match="holds losses of other weights"):
            score(ROWS, f"m={other}", tmp_path / "losses")


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(rope_parameters={"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0}),
        GPTNeoXConfig(),
        GPT2Config(),
        Gemma2Config(),
        Qwen3Config(),
        Gemma3Config(),
    ],
    ids=lambda config: config.model_type,
)
def test_a_state_read_back_has_the_same_digest(config, tmp_path):
    counted = _what_counts(config.to_dict())
    config.save_pretrained(tmp_path)
    assert _what_counts(AutoConfig.from_pretrained(tmp_path).to_dict()) == counted
    assert len(counted) > 100


# ----------------------------------------------------------------- bad input


def test_bad_models(run, llama, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing")
    weightless = tmp_path / "weightless"
    weightless.mkdir()
    (weightless / "config.json").write_text("{}")
    broken = tmp_path / "broken"
    shutil.copytree(llama, broken)
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    same = tmp_path / "checkpoint-200"
    shutil.copytree(llama, same)
    cases = [
        (empty, ModelError, r"is not a model folder: no config.json, \*.gguf or checkpoint-\*; found: notes.txt"),
        (weightless, ModelError, "has a config.json but no weights"),
        (broken, ModelError, "can't be loaded as a causal language model"),
        (tmp_path / "no" / "such" / "folder", ModelError, "there is no such model folder"),
        (tmp_path / "none-*", ModelError, "matches no model folder"),
        (empty / "notes.txt", ModelError, "is a file; allowed are model folders and .gguf files"),
        ([llama, same], ArgumentError, "two states would be called 'checkpoint-200'"),
        ([], ArgumentError, "models: found none"),
    ]
    for models, kind, message in cases:
        with pytest.raises(kind, match=message):
            score(ROWS, models, tmp_path / "losses")


@pytest.mark.parametrize("architecture", ["llama", "neox"])
@pytest.mark.parametrize("lost", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_folder_without_tokenizer(llama, tmp_path, architecture, lost):
    folder = tmp_path / "mute"
    if architecture == "llama":
        shutil.copytree(llama, folder)
    else:
        tiny_neox(folder, tiny_tokenizer())  # for which transformers makes up a tokenizer of two tokens
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"mute: holds no tokenizer \(tokenizer\.json\)$") as caught:
        score(ROWS, folder, tmp_path / "losses")
    assert caught.value.hint == f"save the model's there: tokenizer.save_pretrained({str(folder)!r})"


def test_a_tokenizer_without_end(llama, tmp_path):
    folder = tmp_path / "endless"
    shutil.copytree(llama, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="the tokenizer has no end-of-sequence token"):
        score(ROWS, folder, tmp_path / "losses")
    assert not (tmp_path / "losses").exists()


def test_different_tokenizers(llama, tmp_path):
    other = tiny_neox(tmp_path / "other", tiny_tokenizer(chat=True))
    with pytest.raises(ArgumentError, match="checkpoint-200 and other have different tokenizers"):
        score(ROWS, [llama, other], tmp_path / "losses")
    score(ROWS, llama, tmp_path / "losses", template="plain")
    with pytest.raises(StoreError, match="view 'plain' was made differently"):
        score(ROWS, other, tmp_path / "losses", template="plain")
    store = score(ROWS, other, tmp_path / "losses", template="plain", view="plain-other")
    assert store.states == ["checkpoint-200", "other"]


def test_other_weights_under_a_name_that_is_taken(run, tmp_path):
    for name, step in (("a", 200), ("b", 1000)):
        shutil.copytree(run / f"checkpoint-{step}", tmp_path / name)
    score(ROWS, f"m={tmp_path / 'a'}", tmp_path / "losses")
    with pytest.raises(StoreError, match="holds losses of other weights"):
        score(ROWS, f"m={tmp_path / 'b'}", tmp_path / "losses")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_budget": 0}, "token_budget: found 0, allowed are whole numbers from 1"),
        ({"part_rows": -1}, "part_rows: found -1"),
        ({"max_length": 1}, "max_length: found 1, allowed are whole numbers from 2"),
        ({"max_length": 129}, "max_length: found 129, allowed are at most 128, the positions that checkpoint-200 has"),
        ({"dtype": "float8"}, "dtype: found 'float8', allowed are auto, float32, float16, bfloat16"),
        ({"device": "abacus"}, "device: found 'abacus'"),
        ({"template": "no-such-file"}, "template: found 'no-such-file'"),
        ({"truncated": "left"}, "truncated: found 'left'"),
        ({"n_threads": 0}, "n_threads: found 0"),
    ],
)
def test_bad_options(llama, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        score(ROWS, llama, tmp_path / "losses", **options)
    assert not (tmp_path / "losses").exists()
