"""What Ray's own record of a run must not hold."""

from __future__ import annotations

from typing import Any


class Unsaved:
    """Pickled as nothing. Ray Tune pickles searcher, scheduler and callbacks into ``logs/ray/tuner.pkl``, which nobody
    reads here: the study goes on from its storage. Without this the file would hold the storage's URL with its
    password, all trials so far, and whatever cannot be pickled would stop the run."""

    def __getstate__(self) -> dict[str, Any]:
        return {}
