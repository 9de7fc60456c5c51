"""Forward passes: equal to one example at a time through ``model(input_ids, labels).loss``."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="scoring needs the extra [score]")

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from lossift.pool import read_pool
from lossift.reasons import Reason
from lossift.scoring import forward
from lossift.scoring.encode import Encoding, encode
from lossift.scoring.forward import Forward, plan_batches
from lossift.scoring.templates import resolve_template
from tiny import chat, losses_one_by_one, rows_of, some_rows, tiny_llama, tiny_neox, tiny_tokenizer

# Answers of one token, prompts that are empty, an answer that nothing precedes, many turns, one that is invalid.
EXAMPLES = rows_of(
    chat("", "It is red."),
    chat("What is five?", "7"),
    chat("", "7"),
    chat("one", first="assistant"),
    chat("one", "two", "three", "four", "five", "because it is what it is"),
    chat("ask", ""),
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    return tiny_neox(tmp_path_factory.mktemp("neox"), tiny_tokenizer())


@pytest.fixture(scope="module")
def chat_neox(tmp_path_factory):
    return tiny_neox(tmp_path_factory.mktemp("chat-neox"), tiny_tokenizer(chat=True))


def encoded_by(tokenizer, rows, max_length=128):
    return encode(read_pool(rows), Encoding(tokenizer, resolve_template("auto", tokenizer), max_length))


def assert_equal_to_batch_1(loss, model, encoded):
    expected = np.array(losses_one_by_one(model, encoded))
    np.testing.assert_array_equal(np.isnan(loss), encoded.why_invalid != Reason.VALID)
    valid = ~np.isnan(loss)
    assert valid.any()
    assert (np.abs(loss - expected)[valid] <= 1e-5 * np.maximum(1, expected[valid])).all()


@pytest.mark.parametrize("architecture", ["llama", "neox", "chat_neox"])
@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("pad", ["eos", "none"])
def test_parity_with_batch_1(request, architecture, padding_side, pad):
    folder = request.getfixturevalue(architecture)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=padding_side)
    tokenizer.pad_token = tokenizer.eos_token if pad == "eos" else None
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    pool = EXAMPLES + rows_of(*(chat(r["prompt"], r["completion"]) for r in some_rows()))
    encoded = encoded_by(tokenizer, pool)
    loss, why = Forward(model, token_budget=512).losses(encoded, 0, len(pool))
    assert_equal_to_batch_1(loss, model, encoded)
    np.testing.assert_array_equal(why, encoded.why_invalid)


def test_the_company_in_a_batch_does_not_matter(llama):
    model = AutoModelForCausalLM.from_pretrained(llama).eval()
    encoded = encoded_by(AutoTokenizer.from_pretrained(llama), some_rows())
    alone, _ = Forward(model, token_budget=1).losses(encoded, 0, 60)
    for budget in (64, 1000, 100_000):
        together, _ = Forward(model, token_budget=budget).losses(encoded, 0, 60)
        np.testing.assert_allclose(together, alone, rtol=1e-5)
        parts = [Forward(model, token_budget=budget).losses(encoded, *part)[0] for part in ((0, 7), (7, 60))]
        np.testing.assert_allclose(np.concatenate(parts), alone, rtol=1e-5)


def test_chunks_of_logits_do_not_matter(llama, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(llama).eval()
    encoded = encoded_by(AutoTokenizer.from_pretrained(llama), some_rows())
    whole, _ = Forward(model, 512).losses(encoded, 0, 60)
    monkeypatch.setattr(forward, "LOGITS_BYTES", 3 * 4 * model.config.vocab_size)
    chunked, _ = Forward(model, 512).losses(encoded, 0, 60)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)


@pytest.mark.parametrize("logits_bytes", [1, 1 << 26])
def test_models_that_cap_their_logits_take_the_long_way(monkeypatch, logits_bytes):
    monkeypatch.setattr(forward, "LOGITS_BYTES", logits_bytes)
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=0.5,
            max_position_embeddings=128,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()
    encoded = encoded_by(tokenizer, some_rows(20))
    scorer = Forward(model, 512)
    assert scorer.head is None, "its logits are not just head times hidden states"
    loss, _ = scorer.losses(encoded, 0, 20)
    assert_equal_to_batch_1(loss, model, encoded)


def test_the_short_way_is_taken_where_it_is_right(llama, neox):
    for folder in (llama, neox):
        assert Forward(AutoModelForCausalLM.from_pretrained(folder), 512).head is not None


def test_a_non_finite_loss_is_invalid(llama):
    model = AutoModelForCausalLM.from_pretrained(llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(llama)
    encoded = encoded_by(tokenizer, rows_of(chat("ask", "red"), chat("ask", "blue"), chat("ask", "")))
    only_first = np.setdiff1d(encoded.row(0)[0], encoded.row(1)[0])
    with torch.no_grad():
        model.get_input_embeddings().weight[int(only_first[0])] = float("nan")
    # Embeddings and head are one: every logit of that token is NaN, and so is every log-softmax.
    loss, why = Forward(model, 512).losses(encoded, 0, 3)
    assert why.tolist() == [Reason.NON_FINITE_LOSS, Reason.NON_FINITE_LOSS, Reason.EMPTY_RESPONSE]
    assert np.isnan(loss).all()


def test_modes_random_numbers_and_gradients_are_left_alone(llama):
    model = AutoModelForCausalLM.from_pretrained(llama).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    random_state = torch.random.get_rng_state()
    encoded = encoded_by(AutoTokenizer.from_pretrained(llama), some_rows(5))
    Forward(model, 512).losses(encoded, 0, 5)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())
    ids = torch.arange(10)[None]
    model(input_ids=ids, labels=ids).loss.backward()  # nothing cached while scoring gets in the way


def test_dropout_is_off(llama):
    model = AutoModelForCausalLM.from_pretrained(llama, attention_dropout=0.5).train()
    encoded = encoded_by(AutoTokenizer.from_pretrained(llama), some_rows(5))
    first, _ = Forward(model, 512).losses(encoded, 0, 5)
    second, _ = Forward(model, 512).losses(encoded, 0, 5)
    np.testing.assert_array_equal(first, second)


@given(lengths=st.lists(st.integers(1, 300), max_size=60), budget=st.integers(1, 600))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    array = np.array(lengths, dtype=np.int64)
    batches = plan_batches(array, budget)
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * array[batch].max() <= budget
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
