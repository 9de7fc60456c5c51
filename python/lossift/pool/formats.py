"""Formats: which fields of a row hold the conversation, and how they become an `Example`.

In goes a row as its container gave it, out comes an `Example`, or a `RowError` that says what was found and what
is allowed. The formats are one table, `FORMATS`, tried from the top on the fields of the first rows; a format
more is a line more. What was recognised is a `Mapping`: plain names, printed for the user and kept with the
losses, so that the same rows are read the same way again.

A row is either turns (messages, ShareGPT) or a prompt with a response (everything else). Empty text is kept:
whether an example can be scored is decided when it is. Missing or null text is refused, since it means another
mapping or a broken file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lossift.errors import ArgumentError, PoolError
from lossift.pool.example import Example, Message
from lossift.pool.identity import without_nulls
from lossift.pool.source import Row, kind_of

Reader = Callable[[Row], Example]
Tools = tuple[dict[str, Any], ...]


class RowError(ValueError):
    """What is wrong with a row; the pool adds which row it is."""


@dataclass(frozen=True, slots=True)
class Format:
    """A line of the table: the field names under which a format's parts are known, the usual one first."""

    name: str
    required: dict[str, tuple[str, ...]]
    optional: dict[str, tuple[str, ...]]
    turn_key: str | None = None  # the field that tells its turns from another format's

    @property
    def fields(self) -> str:
        """The required names, for messages."""
        return " + ".join("|".join(names) for names in self.required.values())


_SYSTEM = ("system", "system_prompt", "system_message")
_TURNS = {"system": _SYSTEM, "tools": ("tools", "functions")}
_RESPONSES = ("completion", "response", "canonical_solution", "chosen", "output", "answer")
_ANSWERS = ("answer", "response", "sql", "solution", "answers", "output", "query")

FORMATS = (
    Format("messages", {"messages": ("messages", "conversation", "conversations")}, _TURNS, "role"),
    Format("sharegpt", {"messages": ("conversations", "conversation", "messages")}, _TURNS, "from"),
    Format(
        "alpaca",
        {"prompt": ("instruction",), "response": ("output", "response", "completion", "answer")},
        {"input": ("input", "context"), "system": _SYSTEM},
    ),
    Format(
        "prompt/completion",
        {"prompt": ("prompt", "input"), "response": _RESPONSES},
        {"system": _SYSTEM, "tools": ("tools",)},
    ),
    Format(
        "question/answer",
        {"prompt": ("question", "query", "problem"), "response": _ANSWERS},
        {"system": _SYSTEM},
    ),
)

_ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_PARTS = ("prompt", "response", "input", "system", "messages", "tools")


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which field holds which part of an example."""

    format: str
    fields: dict[str, str]

    def __str__(self) -> str:
        """One line, as the command line prints it: ``alpaca: prompt=instruction(+input), response=output``."""
        fields = dict(self.fields)
        if "input" in fields:
            fields["prompt"] += f"(+{fields.pop('input')})"
        return f"{self.format}: " + ", ".join(f"{part}={field}" for part, field in fields.items())

    def spec(self) -> dict[str, str]:
        """What `Mapping.from_spec` takes."""
        return {"format": self.format, **self.fields}

    @classmethod
    def from_spec(cls, spec: dict[str, str]) -> Mapping:
        """The mapping that `spec` wrote."""
        fields = dict(spec)
        return cls(fields.pop("format"), fields)

    def reader(self) -> Reader:
        """The function from a row to its example; it raises `RowError`."""
        system, tools = self.fields.get("system"), self.fields.get("tools")
        if "messages" in self.fields:
            return partial(_turns_example, field=self.fields["messages"], system=system, tools=tools)
        return partial(
            _pair_example,
            prompt=self.fields["prompt"],
            response=self.fields["response"],
            second=self.fields.get("input"),
            system=system,
            tools=tools,
        )


def parse_mapping(given: dict[str, str] | str) -> dict[str, str]:
    """Parts and fields from ``"prompt=question,response=answer"`` or a dict.

    Examples
    --------
    >>> parse_mapping("prompt=question, response=answer")
    {'prompt': 'question', 'response': 'answer'}
    """
    if isinstance(given, str):
        pairs = [pair.partition("=") for pair in given.split(",")]
        wrong = [part for part, _, field in pairs if not (part.strip() and field.strip())]
        if wrong:
            raise ArgumentError(
                f"mapping: found {given!r}; allowed: PART=FIELD pairs with commas between, "
                "as in prompt=question,response=answer"
            )
        given = {part.strip(): field.strip() for part, _, field in pairs}
    unknown = [part for part in given if part not in _PARTS]
    if unknown:
        raise ArgumentError(f"mapping: unknown part {unknown[0]!r}; allowed: {', '.join(_PARTS)}")
    if "messages" in given and {"prompt", "response", "input"} & given.keys():
        raise ArgumentError("mapping: messages can't be given together with prompt, response or input")
    return dict(given)


def recognise(rows: Iterable[Row], given: dict[str, str] | str | None, name: str) -> Mapping:
    """The mapping for a pool, from its first rows.

    Parameters
    ----------
    rows
        The first rows.
    given
        The user's own mapping. With ``messages``, or with ``prompt`` and ``response``, it is the whole mapping;
        otherwise it amends the recognised one.
    name
        The pool's name, for messages.

    Raises
    ------
    ArgumentError
        If the given mapping names a part or a field that doesn't exist.
    PoolError
        If no format fits.
    """
    rows = list(rows)
    found = list(dict.fromkeys(field for row in rows for field in row))
    wanted = parse_mapping(given) if given else {}
    absent = [field for field in wanted.values() if field not in found]
    if absent:
        raise ArgumentError(f"mapping: no field {absent[0]!r} in {name}; fields found: {', '.join(found)}")
    if "messages" in wanted:
        return Mapping("messages", wanted)
    if {"prompt", "response"} <= wanted.keys():
        return Mapping("prompt/completion", wanted)
    for known in FORMATS:
        fields = _match(known, found)
        if fields is not None and _turns_fit(known, rows, fields):
            return Mapping(known.name, fields | wanted)
    raise PoolError(
        f"{name}: no format known for the fields {', '.join(map(repr, found)) or '(none)'}; allowed: "
        + "; ".join(f"{known.name} ({known.fields})" for known in FORMATS),
        hint="say which fields to use, as in --map prompt=FIELD,response=FIELD or --map messages=FIELD",
    )


def _match(known: Format, found: list[str]) -> dict[str, str] | None:
    """The fields that fill a format's parts, exact names before names in other letter case."""
    lower = {field.lower(): field for field in reversed(found)}
    fields: dict[str, str] = {}
    for part, names in (known.required | known.optional).items():
        hits = [name for name in names if name in found] or [lower[name] for name in names if name in lower]
        hits = [field for field in hits if field not in fields.values()]
        if hits:
            fields[part] = hits[0]
        elif part in known.required:
            return None
    return fields


def _turns_fit(known: Format, rows: list[Row], fields: dict[str, str]) -> bool:
    """Whether the field that should hold turns does, in this format's style."""
    if known.turn_key is None:
        return True
    for row in rows:
        value = row.get(fields["messages"])
        if isinstance(value, str):
            try:
                value = _parse_list(value)
            except RowError:
                return False
        if isinstance(value, list | tuple) and value:
            return isinstance(value[0], dict) and known.turn_key in value[0]
        if value is not None and not isinstance(value, list | tuple):
            return False
    return True


def _pair_example(
    row: Row, *, prompt: str, response: str, second: str | None, system: str | None, tools: str | None
) -> Example:
    """An example from a prompt and a response; each is text, or the turns of TRL's conversational sets."""
    asked, answered = _needed(row, prompt, "prompt"), _needed(row, response, "response")
    before: tuple[Message, ...] = _system(row, system)
    if _holds_turns(asked):
        before += tuple(replace(turn, supervised=False) for turn in _turns(asked))
    else:
        extra = row.get(second) if second is not None else None
        more = "" if extra is None else extra if type(extra) is str else _text(extra, second, "input")
        before += (Message("user", asked if type(asked) is str else _text(asked, prompt, "prompt"), more),)
    if _holds_turns(answered):
        after = _turns(answered)
        if _same(after[: len(before)], before):  # a preference set repeats the prompt in `chosen`
            after = after[len(before) :]
    else:
        text = answered if type(answered) is str else _text(answered, response, "response")
        after = (Message("assistant", text),)
    return Example(before + after, _tools(row, tools))


def _turns_example(row: Row, *, field: str, system: str | None, tools: str | None) -> Example:
    """An example from a list of turns."""
    value = _needed(row, field, "messages")
    if isinstance(value, str):
        value = _parse_list(value)
    if not isinstance(value, list | tuple):
        raise RowError(f"field {field!r} (messages) is {kind_of(value)}; allowed: a list of turns")
    return Example(_system(row, system) + _turns(value), _tools(row, tools))


def _turns(turns: Iterable[Any]) -> tuple[Message, ...]:
    return tuple(_turn(turn, index) for index, turn in enumerate(turns))


def _turn(turn: Any, index: int) -> Message:
    if type(turn) is not dict:
        raise RowError(f"turn {index} is {kind_of(turn)}; allowed: an object with role and content")
    said = turn.get("role")
    if said is None:
        said = turn.get("from")
    role = _ROLES.get(said) if type(said) is str else None
    if role is None:
        found = "no role" if said is None else f"the role {said!r}"
        raise RowError(f"turn {index} has {found}; allowed: {', '.join(_ROLES)}")
    content = turn.get("content")
    if content is None:
        content = turn.get("value")
    calls = _calls(turn.get("tool_calls"), index)
    if type(content) is not str:
        content = "" if content is None and calls else _content(content, index)
    if calls:
        content = "\n".join([content, *calls] if content else calls)
    return Message(role, content, "", _weight(turn, index) != 0)


def _weight(turn: Row, index: int) -> float:
    """What a turn counts: only whether it is zero matters."""
    for field in ("loss_weight", "weight"):
        weight = turn.get(field)
        if isinstance(weight, int | float):
            return weight
        if weight is not None:
            raise RowError(f"turn {index} has a {field} that is {kind_of(weight)}; allowed: a number, true or false")
    return 1


def _calls(calls: Any, index: int) -> list[str]:
    """The tool calls of a turn, each as a line of JSON."""
    if isinstance(calls, str):
        calls = _parse_list(calls) if calls.strip() else None
    if not calls:
        return []
    if not isinstance(calls, list | tuple):
        raise RowError(f"turn {index} has tool_calls that are {kind_of(calls)}; allowed: a list of objects")
    lines = []
    for item in calls:
        call = _parse_list(item) if isinstance(item, str) and item.startswith("{") else item
        if not isinstance(call, dict):
            raise RowError(f"turn {index} has tool_calls that list {kind_of(call)}; allowed: a list of objects")
        function = call.get("function")
        said = without_nulls(call if function is None else function)
        try:
            lines.append(json.dumps(said, ensure_ascii=False))
        except (TypeError, ValueError) as error:  # tables and lists in memory may hold what JSON can't
            raise RowError(f"turn {index} has tool_calls that JSON can't hold: {error}") from None
    return lines


def _content(content: Any, index: int) -> str:
    """The text of a turn whose content is a list of typed parts."""
    if not isinstance(content, list | tuple):
        raise RowError(f"turn {index} has content that is {kind_of(content)}; allowed: text or a list of parts")
    texts = []
    for part in content:
        text = part
        if isinstance(part, dict):
            text = part.get("text")
            if text is None:
                text = part.get("value")
        if not isinstance(text, str):
            found = repr(part.get("type")) if isinstance(part, dict) else kind_of(part)
            raise RowError(f"turn {index} has a part of type {found} without text; allowed: parts of text")
        texts.append(text)
    return "".join(texts)


def _needed(row: Row, field: str, part: str) -> Any:
    value = row.get(field)
    if value is None:
        if field in row:
            raise RowError(f"field {field!r} ({part}) is null; allowed: {_allowed(part)}")
        raise RowError(f"no field {field!r} ({part}); fields found: {', '.join(map(repr, row)) or '(none)'}")
    return value


def _text(value: Any, field: str | None, part: str) -> str:
    """The text of a field that isn't plain text: a number, or a list of either."""
    if type(value) is str:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, list | tuple) for item in value):
        return "\n".join(_text(item, field, part) for item in value)
    raise RowError(f"field {field!r} ({part}) holds {kind_of(value)}; allowed: {_allowed(part)}")


def _allowed(part: str) -> str:
    return "a list of turns" if part == "messages" else "text, a number, a list of these or a list of turns"


def _system(row: Row, field: str | None) -> tuple[Message, ...]:
    value = row.get(field) if field is not None else None
    return (Message("system", _text(value, field, "system")),) if value else ()


def _tools(row: Row, field: str | None) -> Tools | None:
    value = row.get(field) if field is not None else None
    if isinstance(value, str):
        value = _parse_list(value) if value.strip() else None
    if not value:
        return None
    if not isinstance(value, list | tuple):
        raise RowError(f"field {field!r} (tools) holds {kind_of(value)}; allowed: a list of objects")
    tools = [_parse_list(tool) if isinstance(tool, str) and tool.startswith("{") else tool for tool in value]
    wrong = [tool for tool in tools if not isinstance(tool, dict)]
    if wrong:
        raise RowError(f"field {field!r} (tools) lists {kind_of(wrong[0])}; allowed: a list of objects")
    return tuple(without_nulls(tool) for tool in tools)


def _parse_list(text: str) -> Any:
    """A list that the row keeps as JSON text (tools as a rule; everything in CSV)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise RowError(f"found the text {shown!r}; allowed: a list, or the JSON of one") from None


def _holds_turns(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], dict)


def _same(some: tuple[Message, ...], others: tuple[Message, ...]) -> bool:
    return [(turn.role, turn.text) for turn in some] == [(turn.role, turn.text) for turn in others]
