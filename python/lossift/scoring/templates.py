"""Templates: how the messages of an example become one text.

All of them are Jinja chat templates in the sense of `transformers`, ours included, so there is one way to
render. What enters: the tokenizer and the ``template`` argument; what leaves: a `Template` that renders.

========  ==========================================================================================
auto      the tokenizer's chat template when it has one, else ``plain``
chat      the tokenizer's chat template
plain     ``### Instruction:``, ``### Input:``, ``### Response:``, each on its own line; no preamble
alpaca    the same with the preamble of Stanford Alpaca and nothing between ``### Response:`` and the answer
other     a Jinja template, or the path of a file that holds one
========  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossift.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from lossift.pool import Message

_ALLOWED = "auto, chat, plain, alpaca, a Jinja template or the path of one"


def _sections(preamble: str, after_response_mark: str) -> str:
    """Returns a Jinja template in Alpaca's layout; a later turn never changes the text of an earlier one."""
    return (
        r"{%- macro gap(role) %}{{ '\n\n' if role == 'assistant' else '' }}{% endmacro %}"
        + preamble
        + r"{%- if tools %}{{ '### Tools:\n' + (tools | tojson) + '\n\n' }}{% endif %}"
        r"{%- for message in messages %}"
        r"{%- if not loop.first %}{{ gap(loop.previtem.role) }}{% endif %}"
        r"{%- if message.role == 'assistant' %}"
        r"{{ '### Response:" + after_response_mark + r"' + message.content + eos_token }}"
        r"{%- elif message.role in ['system', 'developer'] %}{{ message.content + '\n\n' }}"
        r"{%- elif message.role == 'user' %}{{ '### Instruction:\n' + message.content + '\n\n' }}"
        r"{%- if message.input %}{{ '### Input:\n' + message.input + '\n\n' }}{% endif %}"
        r"{%- else %}{{ '### ' + (message.role | capitalize) + ':\n' + message.content + '\n\n' }}"
        r"{%- endif %}{% endfor %}"
        r"{%- if add_generation_prompt %}"
        r"{{ gap(messages[-1].role) + '### Response:" + after_response_mark + r"' }}{% endif %}"
    )


PLAIN = _sections(preamble="", after_response_mark=r"\n")

# The wording of Stanford Alpaca; a system message of the example's own takes its place.
ALPACA = _sections(
    preamble=(
        r"{%- if messages[0].role not in ['system', 'developer'] %}"
        r"{{ 'Below is an instruction that describes a task' }}"
        r"{{ ', paired with an input that provides further context. ' if messages[0].input else '. ' }}"
        r"{{ 'Write a response that appropriately completes the request.\n\n' }}{% endif %}"
    ),
    after_response_mark="",
)

_OURS = {"plain": PLAIN, "alpaca": ALPACA}


@dataclass(frozen=True)
class Template:
    """One way to render messages.

    Attributes
    ----------
    name
        ``chat``, ``plain``, ``alpaca`` or ``custom``; also the default name of the view.
    source
        The Jinja source, or None for the tokenizer's own.
    """

    name: str
    source: str | None

    @property
    def places_input(self) -> bool:
        """Whether the template has a place of its own for Alpaca's second field."""
        return self.name in _OURS

    @property
    def writes_bos(self) -> bool:
        """Whether a start mark is the template's business; else the tokenizer's habit decides."""
        return self.source is None or "bos_token" in self.source

    def render(
        self,
        tokenizer: Any,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """Returns the text of `messages`, with lone surrogates (which no tokenizer takes) as U+FFFD."""
        if self.places_input:
            dicts = [{"role": m.role, "content": m.content, "input": m.input} for m in messages]
        else:
            dicts = [{"role": m.role, "content": m.text} for m in messages]
        text: str = tokenizer.apply_chat_template(
            dicts,
            tools=list(tools) if tools else None,
            chat_template=self.source,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        return _SURROGATES.sub("\ufffd", text) if not text.isascii() else text

    def digest(self, tokenizer: Any) -> str:
        """Returns a digest of everything that decides the rendered text except the messages."""
        source = self.source if self.source is not None else tokenizer.chat_template
        if isinstance(source, dict):
            source = "\0".join(f"{name}\0{source[name]}" for name in sorted(source))
        parts = [source, str(tokenizer.bos_token), str(tokenizer.eos_token)]
        return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


_SURROGATES = re.compile("[\ud800-\udfff]")


def resolve_template(template: str | Path, tokenizer: Any) -> Template:
    """Returns the template that the argument names for this tokenizer.

    Raises
    ------
    ArgumentError
        When it is neither a known name, nor Jinja, nor a file.
    ModelError
        When ``chat`` is asked of a tokenizer that has no chat template.
    """
    text = str(template)
    if text == "auto":
        return Template("chat", None) if tokenizer.chat_template else Template("plain", PLAIN)
    if text == "chat":
        if not tokenizer.chat_template:
            raise ModelError(
                f"template: 'chat' was asked, but the tokenizer of {tokenizer.name_or_path} has no chat template",
                hint="use template='plain', or give a Jinja template",
            )
        return Template("chat", None)
    if text in _OURS:
        return Template(text, _OURS[text])
    if "{{" in text or "{%" in text:
        return Template("custom", text)
    try:
        return Template("custom", Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ArgumentError(f"template: found {text!r}, allowed are {_ALLOWED}") from None
