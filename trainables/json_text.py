"""JSON that somebody else wrote. Loads nothing but the standard library."""

from __future__ import annotations

import json
from typing import Any


def parse(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, a number has thousands of digits, or brackets stand in brackets without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
