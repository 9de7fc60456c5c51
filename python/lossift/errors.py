"""The errors that lossift raises, each with a cure where one is known.

Bad arguments are ``ValueError``/``TypeError`` and missing files ``FileNotFoundError``, as everywhere in
Python; all of ours are also :class:`LossiftError`, so one ``except`` catches what lossift has to say.
"""

from __future__ import annotations


class LossiftError(Exception):
    """An error with a one-line reason and, when the cure is known, a hint.

    Parameters
    ----------
    message
        What was wrong with which argument, file and row; what was found; what is allowed.
    hint
        What to do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ArgumentError(LossiftError, ValueError):
    """An argument outside what is allowed."""


class PoolError(LossiftError, ValueError):
    """A pool that can't be read as examples."""


class PoolNotFoundError(PoolError, FileNotFoundError):
    """A pool that isn't where it was said to be."""


class StoreError(LossiftError, ValueError):
    """A loss store that is broken, of another pool, or without the asked column."""


class ModelError(LossiftError, ValueError):
    """A model or tokenizer that can't be loaded or used for scoring."""


class MissingExtraError(LossiftError, ImportError):
    """A package of an optional extra that this call needs and that isn't installed."""
