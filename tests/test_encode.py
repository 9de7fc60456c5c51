"""Encoding: which tokens of an example are supervised, and what is cut."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="scoring needs the extra [score]")

from lossift.errors import ArgumentError, ModelError
from lossift.pool import Example, Message, read_pool
from lossift.reasons import Reason
from lossift.scoring.encode import Encoded, Encoding, encode, tokenizer_digest
from lossift.scoring.templates import ALPACA, PLAIN, resolve_template
from tiny import TEXTS, chat, rows_of, tiny_tokenizer

EOS = "<|endoftext|>"
# Its mark ends in a space, which tokenizers make part of the answer's first word.
QUESTION_ANSWER = (
    "{% for m in messages %}{{ 'Q: ' if m.role == 'user' else 'A: ' }}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}A: {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def chat_tokenizer():
    return tiny_tokenizer(chat=True)


def encoding_of(tokenizer, template="auto", max_length=256, truncated="drop"):
    return Encoding(tokenizer, resolve_template(template, tokenizer), max_length, truncated)


def encode_one(example, tokenizer, **options) -> Encoded:
    return encode(read_pool(rows_of(example)), encoding_of(tokenizer, **options))


def supervised_text(encoded: Encoded, tokenizer, row: int = 0) -> str:
    tokens, supervised = encoded.row(row)
    return tokenizer.decode(tokens[supervised])


def whole_text(encoded: Encoded, tokenizer, row: int = 0) -> str:
    return tokenizer.decode(encoded.row(row)[0])


# ---------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        (
            "plain",
            [Message("user", "Ask"), Message("assistant", "Tell")],
            f"### Instruction:\nAsk\n\n### Response:\nTell{EOS}",
        ),
        (
            "plain",
            [Message("user", "Ask", "of five"), Message("assistant", "Tell")],
            f"### Instruction:\nAsk\n\n### Input:\nof five\n\n### Response:\nTell{EOS}",
        ),
        (
            "plain",
            [Message("system", "Be kind."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")],
            f"Be kind.\n\n### Instruction:\na\n\n### Response:\nb{EOS}\n\n### Instruction:\nc\n\n",
        ),
        (
            "plain",
            [Message("user", "a"), Message("tool", "7"), Message("assistant", "b"), Message("assistant", "c")],
            f"### Instruction:\na\n\n### Tool:\n7\n\n### Response:\nb{EOS}\n\n### Response:\nc{EOS}",
        ),
        (
            "alpaca",
            [Message("user", "Ask"), Message("assistant", "Tell")],
            "Below is an instruction that describes a task. Write a response that appropriately completes the "
            f"request.\n\n### Instruction:\nAsk\n\n### Response:Tell{EOS}",
        ),
        (
            "alpaca",
            [Message("user", "Ask", "of five"), Message("assistant", "Tell")],
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\nAsk\n\n### Input:\nof five\n\n### Response:Tell{EOS}",
        ),
        (
            "alpaca",
            [Message("system", "Be kind."), Message("user", "Ask"), Message("assistant", "Tell")],
            f"Be kind.\n\n### Instruction:\nAsk\n\n### Response:Tell{EOS}",
        ),
    ],
)
def test_our_templates(tokenizer, template, messages, text):
    resolved = resolve_template(template, tokenizer)
    assert resolved.render(tokenizer, messages) == text
    for i, message in enumerate(messages):  # the prefix property, for every turn
        asked = resolved.render(tokenizer, messages[:i], add_generation_prompt=True) if i else ""
        assert message.role != "assistant" or text.startswith(asked)


def test_auto_prefers_the_tokenizers_own_template(tokenizer, chat_tokenizer):
    assert resolve_template("auto", tokenizer).name == "plain"
    assert resolve_template("auto", chat_tokenizer).name == "chat"
    assert resolve_template("plain", chat_tokenizer).source == PLAIN


def test_jinja_as_text_and_as_file(tokenizer, tmp_path):
    source = "{% for m in messages %}{{ m.role[0] + ': ' + m.content + eos_token }}{% endfor %}"
    source += "{% if add_generation_prompt %}a: {% endif %}"
    path = tmp_path / "mine.jinja"
    path.write_text(source)
    for template in (source, path, str(path)):
        encoded = encode_one(chat("five", "six"), tokenizer, template=template)
        assert whole_text(encoded, tokenizer) == f"u: five{EOS}a: six{EOS}"
        # " six" is one token and begins before the answer does: it is not supervised.
        assert supervised_text(encoded, tokenizer).endswith(EOS)


def test_wrong_templates(tokenizer):
    with pytest.raises(ArgumentError, match="template: found 'alpacca', allowed are auto, chat, plain, alpaca"):
        resolve_template("alpacca", tokenizer)
    with pytest.raises(ModelError, match="has no chat template"):
        resolve_template("chat", tokenizer)


# --------------------------------------------------------------------- spans


def test_plain_supervises_the_response_and_its_end(tokenizer):
    encoded = encode_one(chat("What is five?", "It is red."), tokenizer)
    assert whole_text(encoded, tokenizer) == f"### Instruction:\nWhat is five?\n\n### Response:\nIt is red.{EOS}"
    assert supervised_text(encoded, tokenizer) == f"It is red.{EOS}"
    assert encoded.n_supervised[0] == encoded.supervised.sum()
    assert encoded.n_tokens[0] == len(encoded.tokens)


def test_chat_supervises_every_answer_without_the_newline_after_it(chat_tokenizer):
    encoded = encode_one(chat("one", "two", "three", "four"), chat_tokenizer)
    assert whole_text(encoded, chat_tokenizer) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
        "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>\n"
    )
    assert supervised_text(encoded, chat_tokenizer) == "two<|im_end|>four<|im_end|>"


def test_an_answer_that_nothing_precedes(chat_tokenizer, tokenizer):
    # The template puts a system prompt before the first message, and can't render none.
    encoded = encode_one(chat("one", "two", "three", first="assistant"), chat_tokenizer)
    assert supervised_text(encoded, chat_tokenizer) == "one<|im_end|>three<|im_end|>"
    encoded = encode_one(chat("one", first="assistant"), tokenizer)
    assert supervised_text(encoded, tokenizer) == f"one{EOS}"


def test_unsupervised_answers_are_context(tokenizer):
    class TwoAnswers:
        def __len__(self):
            return 1

        def examples(self):
            yield Example(
                (Message("user", "a"), Message("assistant", "b", supervised=False), Message("assistant", "c"))
            )

    encoded = encode(TwoAnswers(), encoding_of(tokenizer))
    assert supervised_text(encoded, tokenizer) == f"c{EOS}"


def test_end_marks_inside_an_answer_and_spaces_before_the_mark(chat_tokenizer):
    encoded = encode_one(chat("a", "b <|im_end|> c \n"), chat_tokenizer)
    assert supervised_text(encoded, chat_tokenizer) == "b <|im_end|> c \n<|im_end|>"


def test_a_token_that_begins_in_the_prompt_is_not_supervised(tokenizer):
    encoded = encode_one(chat("what", "because five"), tokenizer, template=QUESTION_ANSWER)
    assert supervised_text(encoded, tokenizer) == f" five{EOS}"


@pytest.mark.parametrize("trim", [False, True])
def test_offsets_that_leave_out_leading_spaces_give_the_same_mask(trim):
    from tokenizers.processors import ByteLevel

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=trim)
    expected = {"because five": f" five{EOS}", "7 red": f"7 red{EOS}", "  blue": f"  blue{EOS}"}
    for answer, text in expected.items():
        assert supervised_text(encode_one(chat("what", answer), tokenizer, template=QUESTION_ANSWER), tokenizer) == text
    assert supervised_text(encode_one(chat("a", "b  c é🙂"), tokenizer), tokenizer) == f"b  c é🙂{EOS}"


def test_characters_of_many_bytes_and_lone_surrogates(tokenizer):
    encoded = encode_one(chat("¿qué? 🙂", "語🙂 é"), tokenizer)
    assert supervised_text(encoded, tokenizer) == f"語🙂 é{EOS}"
    encoded = encode_one(chat("a\ud800b", "c\udfffd"), tokenizer)
    assert supervised_text(encoded, tokenizer) == f"c\ufffdd{EOS}"


def test_a_start_mark_only_where_the_tokenizer_adds_one(tokenizer):
    with_bos = tiny_tokenizer(bos=True)
    assert whole_text(encode_one(chat("a", "b"), with_bos), with_bos).startswith("<s>### Instruction")
    assert whole_text(encode_one(chat("a", "b"), tokenizer), tokenizer).startswith("### Instruction")
    # A template that writes it is believed; it must not stand there twice.
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    encoded = encode_one(chat("a", "b"), with_bos, template=source)
    assert whole_text(encoded, with_bos) == f"<s>a{EOS}b{EOS}"


# ------------------------------------------------------------------- invalid


@pytest.mark.parametrize(
    "turns",
    [("ask", ""), ("ask", " \n"), ("ask",), ("", "")],
    ids=["empty", "white space", "no answer", "all empty"],
)
def test_empty_responses_are_invalid(tokenizer, chat_tokenizer, turns):
    for each in (tokenizer, chat_tokenizer):
        encoded = encode_one(chat(*turns), each)
        assert encoded.why_invalid.tolist() == [Reason.EMPTY_RESPONSE]
        assert len(encoded.tokens) == 0


def test_a_template_that_changes_earlier_turns_is_named(tokenizer):
    source = (
        "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    )
    pool = read_pool(rows_of(chat("a", "b"), chat("a", "b", "c", "d")))
    encoded = encode(pool, encoding_of(tokenizer, template=source))
    assert encoded.why_invalid.tolist() == [Reason.VALID, Reason.TEMPLATE_BREAKS_PREFIX]
    assert encoded.first_broken == (1, "the template changes what comes before turn 2")


def test_a_template_that_refuses_every_example_is_an_error(tokenizer):
    with pytest.raises(ModelError, match=r"no example can be encoded.*row 0.*the template refuses it: no way"):
        encode_one(chat("a", "b"), tokenizer, template="{{ raise_exception('no way') }}")


def test_tokenizers_that_can_not_be_used(tokenizer):
    no_eos = tiny_tokenizer()
    no_eos.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        encoding_of(no_eos)
    with pytest.raises(ArgumentError, match="max_length: found 1, allowed are whole numbers from 2"):
        encoding_of(tokenizer, max_length=1)
    with pytest.raises(ArgumentError, match="truncated: found 'left', allowed are drop, keep"):
        encoding_of(tokenizer, truncated="left")


# ---------------------------------------------------------------- truncation

# The prompt's tokens, the answer's, and what follows it.
P, A, X = False, True, False


@pytest.mark.parametrize(
    ("mask", "max_length", "truncated", "kept", "why", "prompt_cut"),
    [
        ([P, P, P, A, A], 5, "drop", [0, 1, 2, 3, 4], Reason.VALID, False),
        ([P, P, P, A, A], 4, "drop", [1, 2, 3, 4], Reason.VALID, True),
        ([P, P, P, A, A], 3, "drop", [2, 3, 4], Reason.VALID, True),
        ([P, P, P, A, A], 2, "drop", None, Reason.TRUNCATED_RESPONSE, False),
        ([P, P, P, A, A], 2, "keep", [2, 3], Reason.VALID, True),
        ([P, P, P, A, A, X], 5, "drop", [0, 1, 2, 3, 4], Reason.VALID, False),
        ([P, P, P, A, A, X, X], 4, "drop", [1, 2, 3, 4], Reason.VALID, True),
        ([P, P, A, P, P, A, X], 5, "drop", [1, 2, 3, 4, 5], Reason.VALID, True),
        ([P, P, A, P, P, A, X], 4, "drop", None, Reason.TRUNCATED_RESPONSE, False),
        ([P, P, A, P, P, A, X], 4, "keep", [1, 2, 3, 4], Reason.VALID, True),
        ([P, A, A, A], 3, "drop", None, Reason.TRUNCATED_RESPONSE, False),
        ([P, A, A, A], 3, "keep", [0, 1, 2], Reason.VALID, False),
        ([A, A, A, A], 3, "keep", [0, 1, 2], Reason.VALID, False),
        ([A, P, P], 3, "drop", None, Reason.EMPTY_RESPONSE, False),
        ([P, P, P], 2, "drop", None, Reason.EMPTY_RESPONSE, False),
    ],
)
@pytest.mark.parametrize("bos", [False, True])
def test_truncation(tokenizer, mask, max_length, truncated, kept, why, prompt_cut, bos):
    tokenizer = tiny_tokenizer(bos=True) if bos else tokenizer
    tokens = np.arange(100, 100 + len(mask), dtype=np.int32)
    if bos:
        tokens[0] = tokenizer.bos_token_id
        if kept and prompt_cut and kept[0] > 0:  # the start mark stays in the place of the last context token
            kept = [0, *kept[1:]]
    found = encoding_of(tokenizer, max_length=max_length, truncated=truncated).fit(tokens, np.array(mask))
    assert found[2:] == (why, prompt_cut)
    if kept is not None:
        assert found[0].tolist() == tokens[kept].tolist()
        assert found[1].tolist() == np.array(mask)[kept].tolist()


def test_truncation_counts(tokenizer):
    rows = rows_of(chat(TEXTS[0] * 5, "red"), chat("red", TEXTS[0] * 5), chat("red", "blue"))
    encoded = encode(read_pool(rows), encoding_of(tokenizer, max_length=48))
    assert encoded.why_invalid.tolist() == [Reason.VALID, Reason.TRUNCATED_RESPONSE, Reason.VALID]
    assert encoded.n_cut == 1
    assert encoded.n_tokens[0] == 48
    assert np.diff(encoded.offsets)[1] == 0
    assert encoded.n_tokens[1] > 48, "what was found, so that a person sees how long it would have to be"


# ----------------------------------------------------------------- identity


def test_the_digest_ignores_padding_and_knows_the_rest(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    digest = tokenizer_digest(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
    again.pad_token = again.eos_token
    again(["a", "b c"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(again) == digest
    assert tokenizer_digest(tiny_tokenizer(chat=True)) != digest


def test_meta_is_about_what_decides_tokens(tokenizer):
    meta = encoding_of(tokenizer).meta
    assert meta == encoding_of(tiny_tokenizer()).meta
    for other in ({"template": "alpaca"}, {"max_length": 100}, {"truncated": "keep"}):
        assert encoding_of(tokenizer, **other).meta != meta
    assert ALPACA != PLAIN
