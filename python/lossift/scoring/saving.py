"""Saving: what a full or forbidden disk looks like in the libraries that write models, told as our one error.

The system's own refusal reaches us in three shapes: an `OSError`, safetensors' error, which has only a text
(``I/O error: No space left on device (os error 28)``), and torch's `RuntimeError`, which often doesn't even say why.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lossift.atomic import DiskError
from lossift.errors import LossiftError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_UNSAID = 0
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# torch's writer of archives. When a write fails, leaving its `with` fails again, about a position; its reader, which
# speaks up when a checkpoint is broken, is another matter.
_TORCH = re.compile(
    r"StreamWriter|file write failed|unexpected pos|iostream error|error writing the file|No space left"
)


@contextlib.contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Turns a library's failure to write under `folder` into a `DiskError`; everything else passes unchanged."""
    try:
        yield
    except LossiftError:
        raise
    except Exception as error:
        code = _refusal(error)
        if code is None:
            raise
        path = getattr(error, "filename", None) or folder
        if code in _FORBIDDEN:
            hint = "make it writable and run the same command again: what was already written is kept"
        else:
            hint = "free some space and run the same command again: it goes on from what was already written"
        reason = "the disk is full or failing" if code == _UNSAID else os.strerror(code)
        raise DiskError(f"{path}: can't be written: {reason}", hint=hint) from error


def _refusal(error: Exception) -> int | None:
    """Returns the system's code for why it refused to write, `_UNSAID` where torch keeps it; None for other errors."""
    code: int | None = None
    if isinstance(error, OSError):
        code = error.errno
    elif named := _OS_ERROR.search(str(error)):  # safetensors and tokenizers, which are written in Rust
        code = int(named[1])
    elif isinstance(error, RuntimeError) and _TORCH.search(str(error)):
        return errno.ENOSPC if "No space left" in str(error) else _UNSAID
    return code if code in _FULL + _FORBIDDEN else None
