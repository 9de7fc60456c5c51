"""Random arguments for the door: good ones, and the same spoiled in a way whose outcome is known.

Every argument has a `Kind`, which makes a good value and spoils it. Spoiling says what has to follow: `REFUSED`
(ValueError or TypeError), `FINE` (odd, but the same call), or `EITHER` (any answer, as long as it is one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

FINE, EITHER, REFUSED = "fine", "either", "refused"


class Planned(Exception):  # noqa: N818
    """What a callback of ours raises."""


class Verb(NamedTuple):
    """A function of the door and how to fuzz it."""

    call: Callable[..., Any]
    # Every argument; None for those that `arguments` spoils by itself.
    kinds: dict[str, Any]
    # Good or bad, but unspoiled arguments, and what has to follow.
    arguments: Callable[[Chance], tuple[dict[str, Any], str]]
    # Raises AssertionError where the result isn't what the verb promises.
    check: Callable[[dict[str, Any], Any, Chance], None]


def both(verdict: str, follows: str) -> str:
    """Returns what has to follow from arguments with a verdict when one of them is changed, which may mend it."""
    return EITHER if EITHER in (verdict, follows) else REFUSED if REFUSED in (verdict, follows) else FINE


class Chance:
    """Random choices of one case."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def size(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`; small ones are as likely as large ones."""
        return min(most, least - 1 + int(np.exp(self.rng.random() * np.log(most - least + 2))))

    def ids(self, n: int) -> np.ndarray:
        """uint64[n], distinct but for a chance of one in 10^9 and less."""
        return self.rng.integers(0, 2**64, n, dtype=np.uint64)


class Index:
    """A whole number that isn't an int."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> int:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value!r})"


@dataclass(frozen=True)
class Whole:
    """A whole number in a range."""

    least: int
    most: int
    optional: bool = False

    def spoil(self, chance: Chance, good: Any) -> tuple[Any, str]:
        if chance.maybe(0.4) and good is not None:
            return chance.pick([Index, np.int64 if abs(good) < 2**63 else Index])(good), FINE
        outside = [self.least - 1, self.most + 1, -(2**63), 2**63 * 3, 2**127, -(2**200)]
        other = [
            1.5,
            float("nan"),
            "3",
            b"3",
            [3],
            np.float64(3),
            np.array([3, 4]),
            Index(ZeroDivisionError("no")),
            ...,
        ]
        value = chance.pick(outside + other + [None])
        return value, EITHER if value is None and self.optional else REFUSED


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1."""

    def spoil(self, chance: Chance, good: Any) -> tuple[Any, str]:
        if chance.maybe(0.4):
            return chance.pick([np.float64, Fraction, np.array])(good), FINE
        outside = [-5e-324, -1, 1 + 2**-52, 2, 2**2000, float("nan"), float("inf"), -float("inf")]
        return chance.pick([*outside, "0", b"0", None, [0.5], 1j, ...]), REFUSED


@dataclass(frozen=True)
class Name:
    """One of some names."""

    choices: tuple[str, ...]
    optional: bool = False

    def spoil(self, chance: Chance, _good: Any) -> tuple[Any, str]:
        value = chance.pick(["", "RAW", "\ud800", "\0", "x" * 100_000, None, 3, b"raw"])
        return value, EITHER if value is None and self.optional else REFUSED


@dataclass(frozen=True)
class Text:
    """Any text."""

    def spoil(self, chance: Chance, _good: Any) -> tuple[Any, str]:
        return chance.pick([("", FINE), ("\0é" * 1000, FINE), ("\ud800", REFUSED), (None, REFUSED), (3, REFUSED)])


@dataclass(frozen=True)
class Array:
    """A contiguous array of one dtype and number of dimensions, as long as the others unless it may have any length."""

    optional: bool = False
    any_length: bool = False
    written: bool = False

    def spoil(self, chance: Chance, good: Any) -> tuple[Any, str]:
        if good is None:
            return np.zeros(3, np.complex64), REFUSED
        way = chance.pick([*_FINE_ARRAYS, *_BAD_ARRAYS, *_BAD_ARRAYS])
        with np.errstate(all="ignore"):
            value = way(good)
        if way is _readonly and self.written:
            return value, REFUSED
        if way in _FINE_ARRAYS:
            return value, FINE
        if value is None:
            return None, EITHER if self.optional else REFUSED
        if (
            not isinstance(value, np.ndarray)
            or value.ndim != good.ndim
            or value.dtype.byteorder != good.dtype.byteorder
        ):
            return value, REFUSED
        as_good = value.dtype == good.dtype and value.flags.c_contiguous and value.flags.aligned
        as_good = as_good and (self.any_length or value.shape == good.shape)
        return value, EITHER if as_good else REFUSED


@dataclass(frozen=True)
class Several:
    """A sequence of arrays."""

    def spoil(self, chance: Chance, good: list[np.ndarray]) -> tuple[Any, str]:
        if good and chance.maybe(0.6):
            index = int(chance.rng.integers(len(good)))
            value, verdict = Array().spoil(chance, good[index])
            return [*good[:index], value, *good[index + 1 :]], verdict
        return chance.pick(
            [
                (tuple(good), FINE),
                (dict(enumerate(good)).values(), FINE),
                (iter(good), EITHER),  # used up by the time anybody could check
                (None, REFUSED),
                (3, REFUSED),
                ([*good, None], REFUSED),
            ]
        )


def _readonly(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


class _Subclass(np.ndarray):
    pass


def _misaligned(array: np.ndarray) -> np.ndarray:
    room = np.empty(array.nbytes + 1, np.uint8)
    inside = np.frombuffer(room.data, np.uint8, array.nbytes, 1).view(array.dtype).reshape(array.shape)
    if room.ctypes.data % array.itemsize == 0:
        inside[...] = array
    return inside


def _other_dtype(dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    def other(array: np.ndarray) -> np.ndarray:
        try:
            return array.astype(dtype)
        except (TypeError, ValueError):  # bfloat16 isn't cast to everything
            return np.zeros(array.shape, dtype)

    return other


# The same call: the dtype by another name, other flags, a subclass.
_FINE_ARRAYS: list[Callable[[np.ndarray], Any]] = [
    _readonly,
    lambda array: array.view(_Subclass),
    lambda array: array.astype("q" if array.dtype.char == "l" else "Q" if array.dtype.char == "L" else array.dtype),
    lambda array: np.concatenate([array, array])[: len(array)],
]
# Other bytes than the core would read. (Some of these change nothing for arrays of one element or one-byte types.)
_BAD_ARRAYS: list[Callable[[np.ndarray], Any]] = [
    *map(_other_dtype, ["?", "i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "O", "U5", "V4"]),
    _other_dtype("M8[s]"),
    _other_dtype("m8[s]"),
    lambda array: array.astype(array.dtype.newbyteorder()),
    lambda array: np.repeat(array, 2, axis=0)[::2],
    lambda array: array[::-1],
    lambda array: np.broadcast_to(array[:1], array.shape),
    _misaligned,
    lambda array: array[:-1],
    lambda array: np.concatenate([array, array[:1]]) if len(array) else np.zeros((1, *array.shape[1:]), array.dtype),
    lambda array: array[None],
    lambda array: array[..., None],
    lambda array: array.reshape(-1)[0] if array.size else array[None],
    lambda array: array.tolist(),
    lambda array: memoryview(array.tobytes()),
    lambda array: bytes(array.tobytes()),
    lambda _: None,
    lambda _: "columns",
    lambda _: np.zeros(()),
]


def show(value: Any) -> str:
    """Returns a value in few words."""
    if isinstance(value, np.ndarray):
        flags = ", ".join(name for name in ("c_contiguous", "aligned", "writeable") if not getattr(value.flags, name))
        return f"{type(value).__name__}({value.dtype}, {value.shape}{', not ' + flags if flags else ''})"
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return f"[{', '.join(map(show, value[:4]))}{', ...' if len(value) > 4 else ''}] of {len(value)}"
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
