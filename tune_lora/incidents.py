"""What happened to a study while it ran: lost workers and nodes, damaged checkpoints, a database that was away.

Each is a line, kept as an attribute of the study of its own, so that nothing is read or rewritten when one is added.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from trainables.redaction import redacted

PREFIX = "incident:"  # + when, in UTC, and a few letters: {"at": ISO 8601, "text": a line}
SHOWN = 12
"""Lines that a terminal shows."""


@dataclass(frozen=True)
class Incident:
    """One thing that happened. `at` is aware, in UTC."""

    at: dt.datetime
    text: str

    @property
    def when(self) -> str:
        """Local time, to the second."""
        return f"{self.at.astimezone():%Y-%m-%d %H:%M:%S}"

    def __str__(self) -> str:
        return f"{self.when} {self.text}"


def note(study: optuna.Study, text: str) -> None:
    """Keeps a line about what happened, with the time of day; secrets in it are taken out."""
    at = dt.datetime.now(dt.UTC)
    # Several drivers may note something in the same microsecond.
    key = f"{PREFIX}{at:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(2)}"
    study.set_user_attr(key, {"at": at.isoformat(), "text": redacted(" ".join(text.split()))})


def of(attributes: Mapping[str, Any]) -> tuple[Incident, ...]:
    """What the attributes of a study say happened, oldest first."""
    kept = (attributes[key] for key in sorted(attributes) if key.startswith(PREFIX))
    return tuple(Incident(dt.datetime.fromisoformat(one["at"]), str(one["text"])) for one in kept)


def shown(found: tuple[Incident, ...], most: int = SHOWN) -> list[str]:
    """Lines for a terminal: the last ones, and how many came before."""
    earlier = len(found) - most
    return [*([f"{earlier} earlier, in report.html"] if earlier > 0 else []), *map(str, found[-most:])]
