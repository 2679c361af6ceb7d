"""What Tune has registered, asked for once a run.

For each trial Tune asks the cluster's head three times, over the network, whether there is a trainable of that name,
and unpickles it anew. It is the same one the whole study long; a sixth of the time that a driver takes for a trial went
into asking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import registry


@contextmanager
def remembered() -> Iterator[None]:
    """While it lasts, what Tune finds registered is not asked for again."""
    asked = registry._global_registry
    found: dict[tuple[str, str], Any] = {}

    def get(category: str, key: str) -> Any:
        if (category, key) not in found:
            found[category, key] = type(asked).get(asked, category, key)
        return found[category, key]

    def contains(category: str, key: str) -> bool:
        return (category, key) in found or bool(type(asked).contains(asked, category, key))

    vars(asked).update(get=get, contains=contains)
    try:
        yield
    finally:
        for name in ("get", "contains"):
            del vars(asked)[name]
