"""What an example is, whatever file it came from: messages in order, and the tools they may call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Parameters
    ----------
    role
        ``system``, ``developer``, ``user``, ``assistant`` or ``tool``.
    content
        What was said.
    input
        Alpaca's second field, kept apart so that the Alpaca template can place it; empty elsewhere.
    supervised
        False where the data says that this turn doesn't count (it matters for assistant turns only).
    """

    role: str
    content: str
    input: str = ""
    supervised: bool = True

    @property
    def text(self) -> str:
        r"""The whole turn: the content, and after a blank line the input if there is one.

        Examples
        --------
        >>> Message("user", "Add up.", "1 2").text
        'Add up.\n\n1 2'
        """
        return f"{self.content}\n\n{self.input}" if self.input else self.content


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the pool, read: its messages, and the tools that were on offer."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
