"""Encoding: from examples to token ids and the tokens that count.

Enter: a pool and an `Encoding` (tokenizer, template, length). Leaves: `Encoded`, three flat arrays for all
examples together (4 + 1 bytes a token), so a million examples of 200 tokens take 1 GB and no Python objects.

The choice worth knowing: the supervised span is found **in the text**, by the prefix property. The text up to
and including turn i must be how the whole text starts, and so must the text that asks for turn i; the span is
what lies between the two. The whole text is then tokenised once and its tokens are mapped back by their
offsets. Tokenising the prompt alone and counting would be simpler and wrong: tokens merge across the border.
A token that begins before the span is not supervised. No mask ever looks at the pad id, which often is eos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from lossift.errors import ArgumentError, ModelError
from lossift.reasons import Reason
from lossift.scoring.templates import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lossift.pool import Example, Message, Pool

Span = tuple[int, int]
Talk = Callable[[str], None]
Progress = Callable[[str, int, int], None]

TRUNCATED = ("drop", "keep")
_CHUNK = 512  # examples tokenised in one call: enough for the tokenizer's own threads


_TEMPLATE_REASONS = (Reason.TEMPLATE_BREAKS_PREFIX, Reason.TEMPLATE_REFUSES)


class TemplateError(Exception):
    """A template that can't render an example, or changes earlier turns when later ones follow.

    Attributes
    ----------
    reason
        Why the example is invalid.
    """

    def __init__(self, reason: Reason, complaint: str) -> None:
        super().__init__(complaint)
        self.reason = reason


@dataclass(frozen=True)
class Encoding:
    """How examples become tokens: what the metadata of a view say.

    Parameters
    ----------
    tokenizer
        A fast tokenizer with an end-of-sequence token.
    template
        See `lossift.scoring.templates`.
    max_length
        Tokens an example may have, from 2.
    truncated
        ``drop``: an example whose response doesn't fit is invalid. ``keep``: it is cut at its right.
    """

    tokenizer: Any
    template: Template
    max_length: int
    truncated: str = "drop"
    _end_marks: tuple[str, ...] = field(init=False, repr=False)
    _bos: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = self.tokenizer.name_or_path
        if not self.tokenizer.is_fast:
            raise ModelError(f"{name}: has only a slow tokenizer; scoring needs a fast one (tokenizer.json)")
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"{name}: the tokenizer has no end-of-sequence token, and responses are scored with theirs",
                hint="set eos_token in tokenizer_config.json",
            )
        if self.truncated not in TRUNCATED:
            raise ArgumentError(f"truncated: found {self.truncated!r}, allowed are {', '.join(TRUNCATED)}")
        if self.max_length < 2:
            raise ArgumentError(f"max_length: found {self.max_length}, allowed are whole numbers from 2")
        special = {str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        object.__setattr__(self, "_end_marks", tuple(sorted(special | {self.tokenizer.eos_token})))
        # Whether the tokenizer starts texts with a mark is seen, not believed: flags in its config lie.
        habit = self.tokenizer("").input_ids[:1]
        adds = habit == [self.tokenizer.bos_token_id] and not self.template.writes_bos
        object.__setattr__(self, "_bos", habit if adds else [])

    @property
    def meta(self) -> dict[str, Any]:
        """What makes two views the same: JSON-able, without paths or times."""
        return {
            "mask": "assistant",
            "max_length": self.max_length,
            "template": self.template.name,
            "template_digest": self.template.digest(self.tokenizer),
            "tokenizer": tokenizer_digest(self.tokenizer),
            "truncated": self.truncated,
        }

    def spans(self, example: Example) -> tuple[str, list[Span]]:
        """Returns the text of an example and the character ranges that are supervised, ascending.

        Raises
        ------
        TemplateError
            When the template refuses the example, or the text of a turn depends on what follows it.
        """
        messages = example.messages

        def render(count: int, *, ask: bool = False) -> str:
            return self._render(messages[:count], example.tools, ask=ask)

        text = render(len(messages))
        spans = []
        for i, message in enumerate(messages):
            if message.role != "assistant" or not message.supervised:
                continue
            before = render(i, ask=True) if i else self._opening(example)
            after = render(i + 1) if i + 1 < len(messages) else text
            if not after.startswith(before) or not text.startswith(after):
                raise TemplateError(
                    Reason.TEMPLATE_BREAKS_PREFIX, f"the template changes what comes before turn {i + 1}"
                )
            spans.append((len(before), self._end(after, len(before))))
        return text, spans

    def _opening(self, example: Example) -> str:
        """Returns the text before an answer that nothing precedes: no template renders zero messages."""
        # What the texts of two different answers have in common is what the template puts before them.
        a, b = (
            self._render([replace(example.messages[0], content=content, input="")], example.tools) for content in "ab"
        )
        return a[: next((i for i, pair in enumerate(zip(a, b, strict=False)) if len(set(pair)) == 2), 0)]

    def _render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, *, ask: bool = False) -> str:
        try:
            return self.template.render(self.tokenizer, messages, tools, add_generation_prompt=ask)
        except (jinja2.TemplateError, TypeError) as error:
            raise TemplateError(Reason.TEMPLATE_REFUSES, f"the template refuses it: {error}") from error

    def _end(self, text: str, start: int) -> int:
        """Returns where a turn ends: at its end mark, without the white space a template adds after it."""
        stripped = text.rstrip()
        if len(stripped) > start and stripped.endswith(self._end_marks):
            return len(stripped)
        return len(text)

    def tokenize(self, texts: list[str]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Yields token ids int32[T] and offsets int64[T, 2] for each text, without any special token added."""
        batch = self.tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for ids, offsets in zip(batch["input_ids"], batch["offset_mapping"], strict=True):
            yield np.asarray(ids, dtype=np.int32), np.asarray(offsets, dtype=np.int64).reshape(-1, 2)

    def fit(
        self, tokens: NDArray[np.int32], supervised: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_], Reason, bool]:
        """Returns tokens and mask cut to `max_length`, why they are invalid, and whether the prompt was cut.

        What follows the last supervised token goes first, then the prompt from its left (but for a start mark
        and one token of context), then the response from its right.
        """
        if not supervised[1:].any():
            return tokens, supervised, Reason.EMPTY_RESPONSE, False
        if len(tokens) <= self.max_length:
            return tokens, supervised, Reason.VALID, False
        last = int(np.flatnonzero(supervised)[-1])
        tokens, supervised = tokens[: last + 1], supervised[: last + 1]
        excess = len(tokens) - self.max_length
        if excess <= 0:
            return tokens, supervised, Reason.VALID, False
        first = int(supervised.argmax())
        cut = min(excess, max(first - 1, 0))
        if excess > cut and self.truncated == "drop":
            return tokens, supervised, Reason.TRUNCATED_RESPONSE, False
        head = 1 if tokens[0] == self.tokenizer.bos_token_id else 0
        keep = np.r_[0:head, head + cut : len(tokens)][: self.max_length]
        return tokens[keep], supervised[keep], Reason.VALID, cut > 0


@dataclass(frozen=True)
class Encoded:
    """All examples of a pool as tokens; those that are invalid have none.

    Attributes
    ----------
    tokens, supervised
        int32[S] and bool[S]: example i lies at ``offsets[i]:offsets[i + 1]``.
    offsets
        int64[N + 1].
    n_tokens, n_supervised
        int32[N]. Of a valid example: after truncation. Of an invalid one: as it was found.
    why_invalid
        uint8[N], codes of `lossift.reasons`.
    n_cut
        Examples whose prompt was cut at its left.
    first_broken
        Row and complaint of the first example whose template breaks the prefix property, if any.
    """

    tokens: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    n_tokens: NDArray[np.int32]
    n_supervised: NDArray[np.int32]
    why_invalid: NDArray[np.uint8]
    n_cut: int
    first_broken: tuple[int, str] | None

    def row(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Returns tokens and mask of one example (views, not copies)."""
        where = slice(self.offsets[row], self.offsets[row + 1])
        return self.tokens[where], self.supervised[where]


def encode(pool: Pool, encoding: Encoding, *, progress: Progress | None = None) -> Encoded:
    """Returns the whole pool encoded, once for all states; half of the time goes into rendering templates."""
    n_examples = len(pool)
    tokens: list[NDArray[np.int32]] = []
    supervised: list[NDArray[np.bool_]] = []
    lengths = np.zeros(n_examples, dtype=np.int64)
    n_tokens = np.zeros(n_examples, dtype=np.int32)
    n_supervised = np.zeros(n_examples, dtype=np.int32)
    why_invalid = np.zeros(n_examples, dtype=np.uint8)
    n_cut, first_broken = 0, None

    examples = pool.examples()  # one sweep: a table is far slower row by row
    for start in range(0, n_examples, _CHUNK):
        stop = min(start + _CHUNK, n_examples)
        rows, texts, spans = [], [], []
        for row, example in zip(range(start, stop), examples, strict=False):  # in this order: no example is lost
            if not _has_response(example):
                why_invalid[row] = Reason.EMPTY_RESPONSE
                continue
            try:
                text, found = encoding.spans(example)
            except TemplateError as error:
                why_invalid[row] = error.reason
                first_broken = first_broken or (row, str(error))
                continue
            rows.append(row)
            texts.append(text)
            spans.append(found)
        for row, text, found, (ids, offsets) in zip(
            rows, texts, spans, encoding.tokenize(texts) if texts else (), strict=True
        ):
            bos = encoding._bos
            ids_T = np.concatenate([np.asarray(bos, dtype=np.int32), ids])
            mask_T = np.concatenate([np.zeros(len(bos), dtype=bool), _mask(text, found, offsets)])
            ids_T, mask_T, why, cut = encoding.fit(ids_T, mask_T)
            n_tokens[row] = len(ids_T)
            n_supervised[row] = np.count_nonzero(mask_T[1:])  # nothing comes before the first token
            why_invalid[row] = why
            n_cut += cut
            if why == Reason.VALID:
                tokens.append(ids_T)
                supervised.append(mask_T)
                lengths[row] = len(ids_T)
        if progress:
            progress("encoding", stop, n_examples)

    if first_broken and np.isin(why_invalid, _TEMPLATE_REASONS).all():
        row, complaint = first_broken
        raise ModelError(
            f"template: no example can be encoded; {pool.where(row)}: {complaint}",
            hint="use template='plain', or give a Jinja template",
        )
    return Encoded(
        tokens=np.concatenate([np.empty(0, dtype=np.int32), *tokens]),
        supervised=np.concatenate([np.empty(0, dtype=bool), *supervised]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        n_tokens=n_tokens,
        n_supervised=n_supervised,
        why_invalid=why_invalid,
        n_cut=n_cut,
        first_broken=first_broken,
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns a digest of how a tokenizer maps text to ids, whatever padding or truncation it was saved with."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    definition.pop("padding", None)
    definition.pop("truncation", None)
    content = json.dumps([definition, tokenizer.bos_token, tokenizer.eos_token], sort_keys=True)
    return blake2b(content.encode(), digest_size=16).hexdigest()


def _has_response(example: Example) -> bool:
    """Whether there is an answer to score: an end mark after nothing is none."""
    return any(m.role == "assistant" and m.supervised and m.text.strip() for m in example.messages)


def _mask(text: str, spans: Sequence[Span], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns bool[T]: which tokens start inside a span."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    mask = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        inside = (starts >= start) & (starts < end)
        mask |= inside
        first = int(inside.argmax())
        # Byte-level tokenizers may leave a token's leading spaces out of its offsets. Where the token before
        # stops short of the span and only spaces lie between, they are this token's: it straddles the border.
        if first and inside[first] and ends[first - 1] < start:
            mask[first] = not text[ends[first - 1] : start].isspace()
    return mask
