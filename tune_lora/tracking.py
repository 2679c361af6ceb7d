"""Weights & Biases follows a study: one run a trial, grouped by study.

Nothing here can stop or slow a study. The driver hands on what its trials look like, and another process brings their
runs to that state (`tracking_feed`, `tracking_process`, `tracking_runs`, which alone imports wandb). What goes wrong
becomes one line at the end.
"""

from __future__ import annotations

import hashlib
import netrc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from tune_lora.records import StudyRecord, TrialRecord

Mode = Literal["auto", "online", "offline", "off"]
WHOLE = "the study itself is whole"
"""How a line ends that says what went wrong."""
CLOSE_SECONDS = 60.0
"""How long the end of a study waits for Weights & Biases, before what is left is kept on disk."""


class Tracker(Protocol):
    """Who is told about trials while they run and when they end."""

    def look(self, record: StudyRecord, changed: Sequence[TrialRecord]) -> None:
        """Takes note of a study and of its trials that have changed since the last look. Returns at once and never
        raises."""
        ...

    @property
    def record(self) -> StudyRecord | None:
        """The study as it was at the last look at which a trial had changed; None before that."""
        ...

    def close(self, timeout: float = CLOSE_SECONDS) -> list[str]:
        """Ends the runs and marks the best trial's; waits `timeout` seconds at most for an upload. Returns lines worth
        showing to the user."""
        ...


class NoTracker:
    """Tracking that is off."""

    record: StudyRecord | None = None

    def look(self, record: StudyRecord, changed: Sequence[TrialRecord]) -> None:
        """Does nothing."""

    def close(self, timeout: float = CLOSE_SECONDS) -> list[str]:
        """Has nothing to say."""
        del timeout
        return []


@dataclass(frozen=True)
class Place:
    """Where the runs of a study belong.

    Args:
        project: name of the project at Weights & Biases.
        group: name of the study.
        token: tells the study from another one of its name (`run_id`).
        folder: the study's results folder. Files of runs go to ``logs/wandb`` in it.
        fetch: brings a file that a trial made, given relative to `folder`, where it is not there by itself. May raise
            OSError or StudyError.
        catches_up: whether trials that ended before this driver are tracked now, where they have not been.
    """

    project: str
    group: str
    token: str
    folder: Path
    fetch: Callable[[str], None] | None = field(default=None, compare=False)
    catches_up: bool = True

    @property
    def files(self) -> Path:
        """Where runs are files: the one command that uploads them names it."""
        return self.folder / "logs" / "wandb"


def start(mode: Mode, place: Callable[[], Place]) -> Tracker:
    """The tracker of a study; `place` is asked for where it is not off. ``auto`` is online when the user is logged in,
    and offline otherwise; ``WANDB_MODE`` overrides it."""
    chosen = chosen_mode(mode)
    if chosen == "off":
        return NoTracker()
    from tune_lora.tracking_feed import WandbTracker

    return WandbTracker(place(), online=chosen == "online")


def run_id(token: str, trial: int) -> str:
    """The run of a trial: the same whoever goes on with it, and another one where a study of this name begins anew."""
    return hashlib.sha256(f"{token}/{trial}".encode()).hexdigest()[:16]


def chosen_mode(mode: Mode) -> Literal["online", "offline", "off"]:
    """What a mode means here and now."""
    if mode != "auto":
        return mode
    environment = os.environ.get("WANDB_MODE", "").lower()
    if environment in ("disabled", "dryrun", "offline"):
        return "off" if environment == "disabled" else "offline"
    return "online" if environment == "online" or is_logged_in() else "offline"


def is_logged_in() -> bool:
    """Whether a key for the server of Weights & Biases is at hand; the server is not asked."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
