"""Tiny random models and tokenizers, made on the spot: what the tests of scoring run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lossift.pool import Example, Message
from lossift.scoring.tiny import tiny_model, train_tokenizer

# Models this small gain nothing from threads; on a busy machine they only wait for each other.
torch.set_num_threads(1)

WORDS = "the sum of one two three four five six is what answer ask tell why because red blue green house tree"
TEXTS = [f"What is {i} plus {i + 3}? It is {2 * i + 3}, because {WORDS}." for i in range(40)]

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer(*, chat: bool = False, bos: bool = False, **special: Any) -> Any:
    """Returns a byte-level BPE; with ``chat`` it has ChatML's marks and a template that adds a system prompt."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=400, max_length=256)
    if chat:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
        tokenizer.chat_template = CHATML
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.add_special_tokens({"bos_token": "<s>"})
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    if special:
        tokenizer.add_special_tokens(special)
    return tokenizer


def tiny_llama(out: Path, *, seed: int = 0, **shape: int) -> Path:
    """Returns the folder of a random Llama of 0.1 million weights."""
    shape = {"vocab_size": 400, "hidden_size": 32, "n_layers": 2, "n_heads": 2, "max_length": 128} | shape
    return tiny_model(TEXTS, out, seed=seed, **shape)


def tiny_neox(out: Path, tokenizer: Any, *, seed: int = 0, max_length: int = 128) -> Path:
    """Returns the folder of a random GPT-NeoX (the architecture of Pythia)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=max_length,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def chat(*turns: str, first: str = "user") -> Example:
    """Returns an example whose turns alternate between user and assistant."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return Example(tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns)))


def rows_of(*examples: Example) -> list[dict[str, Any]]:
    """Returns examples as the rows of a pool in memory."""
    return [{"messages": [{"role": m.role, "content": m.content} for m in e.messages]} for e in examples]


def some_rows(count: int = 60) -> list[dict[str, str]]:
    """Returns prompt/completion rows of very different lengths."""
    return [
        {
            "prompt": f"What is {i} plus 3? " + "Tell me why. " * (i % 5),
            "completion": f"It is {i + 3}" + ", because five is red" * (i % 7),
        }
        for i in range(count)
    ]


def losses_one_by_one(model: Any, encoded: Any) -> list[float]:
    """The obvious twin: each example alone through ``model(input_ids, labels).loss``."""
    losses = []
    for row in range(len(encoded.n_tokens)):
        tokens, supervised = encoded.row(row)
        ids = torch.from_numpy(tokens.astype("int64"))
        labels = torch.where(torch.from_numpy(supervised.copy()), ids, -100)
        with torch.no_grad():
            losses.append(float(model(input_ids=ids[None], labels=labels[None]).loss) if len(ids) else float("nan"))
    return losses
