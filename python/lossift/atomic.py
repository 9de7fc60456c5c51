"""Files that appear whole or not at all: temp file, fsync, rename, fsync of the folder.

A crash, a full disk or Ctrl-C at any instant leaves either the old file or the new one under the final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lossift.errors import LossiftError


class DiskError(LossiftError, OSError):
    """A file that could not be written: full disk, read-only folder."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on a clean exit it takes the final name, else it is removed.

    Parameters
    ----------
    path
        The final name. Its folder is created when missing.

    Raises
    ------
    DiskError
        When the system refuses to write (no space, no permission); nothing stands under the final name.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        # Only what the system refused while writing; errors of our own pass through unchanged.
        if isinstance(error, LossiftError):
            raise
        raise _disk_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` under `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _disk_error(path: Path, error: OSError) -> DiskError:
    hint = None
    if error.errno == errno.ENOSPC:
        hint = "free some space and run the same command again: what was already written is kept"
    return DiskError(f"{path}: can't be written: {error.strerror or error}", hint=hint)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The only portable way to read it is to set it; mkstemp made the file private, the final one is not.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
