r"""JSON as files hold it: readable, sorted, and valid UTF-8 whatever the user's strings hold.

Field values and file names may contain lone surrogates, which UTF-8 can't hold; they become ``\udxxx`` escapes, which
JSON can.
"""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any, *, indent: int | None = None, sort_keys: bool = True) -> str:
    """Returns `value` as JSON text that encodes as UTF-8."""
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
