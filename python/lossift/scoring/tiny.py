"""`tiny_model`: a model that knows nothing, made on the spot for a pool: a proxy to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lossift.errors import ArgumentError
from lossift.scoring.models import manners
from lossift.scoring.saving import disk_errors_told

END = "<|endoftext|>"
_SMALLEST_VOCABULARY = 257  # every byte, and the end mark


def tiny_model(
    texts: Iterable[str],
    out: str | Path,
    *,
    vocab_size: int = 4096,
    hidden_size: int = 256,
    n_layers: int = 6,
    n_heads: int = 4,
    max_length: int = 1024,
    seed: int = 0,
) -> Path:
    """Returns the folder of a randomly initialised Llama with a tokenizer trained on `texts`.

    With the defaults it has 6 million weights (embeddings and head are one). The same texts, options and seed
    give the same model.

    Parameters
    ----------
    texts
        What the byte-level BPE is trained on; digits are always single tokens.
    out
        The model folder to write.
    vocab_size
        Tokens at most, from 257.
    hidden_size, n_layers, n_heads
        Shape of the Llama; the feed-forward layers are 8/3 as wide as the others.
    max_length
        Its context, in tokens.
    seed
        Decides the weights.

    Examples
    --------
    >>> from lossift.scoring import tiny_model
    >>> tiny_model(["a text", "another"], "tiny", vocab_size=300)  # doctest: +SKIP
    """
    out = Path(out)
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ArgumentError(f"vocab_size: found {vocab_size}, allowed are whole numbers from {_SMALLEST_VOCABULARY}")
    if hidden_size % (2 * n_heads):
        raise ArgumentError(f"hidden_size: found {hidden_size}, allowed are multiples of 2 * n_heads = {2 * n_heads}")
    with manners(), torch.random.fork_rng(devices=[]):
        tokenizer = train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length)
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden_size,
                intermediate_size=-(-hidden_size * 8 // 3 // 16) * 16,
                num_hidden_layers=n_layers,
                num_attention_heads=n_heads,
                max_position_embeddings=max_length,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        with disk_errors_told(out):
            tokenizer.save_pretrained(out)
            model.save_pretrained(out)
    return out


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_length: int) -> Any:
    """Returns a byte-level BPE with an end mark, trained on `texts`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, model_max_length=max_length)
