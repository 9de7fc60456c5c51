"""Progress bars with an ETA, on stderr; the library itself only calls ``progress(what, done, total)``."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console

LOG_SECONDS = 60.0


class Bars:
    """A bar for each long step; off a terminal, a plain line a minute for the step under way.

    Parameters
    ----------
    console
        Where to draw: a console on stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that `done` of `total` of the step `what` are done."""
        if not self._console.is_terminal:
            self._log(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total, visible=done < total)

    def _log(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= LOG_SECONDS:
            self._last_line = now
            self._console.print(f"{what}: {done:,} of {total:,} ({100 * done // max(total, 1)} %)", markup=False)
