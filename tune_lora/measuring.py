"""A trial that is only measured: the configuration that needs the most, for one report, on a machine of one kind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cluster import connect
from cluster.spec import Footprint, TrialResources
from trainables import footprint as footprints
from trainables.protocol import Cause, TrialContext, TrialFailure
from tune_lora.build import Plan
from tune_lora.errors import StudyError
from tune_lora.heaviest import heaviest


def footprint(ready: Plan, kind: str, *, has_gpu: bool) -> Footprint:
    """Measures on a worker; takes as long as a trial to its first report.

    Raises:
        StudyError: it cannot be trained at all.
    """
    trial = TrialResources(ready.spec.resources.cpu, 1.0 if has_gpu else 0.0)
    threads = max(1, int(trial.cpu))
    try:
        found = connect.run_alone(_measured, ready.trainer, heaviest(ready.space), threads, trial=trial, kind=kind)
    except connect.WorkerFailed as error:
        raise StudyError(f"resources: a trial could not be measured: {error}") from error
    return Footprint(*found)


def _measured(trainer: Any, params: dict[str, Any], threads: int) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory(prefix="tune-lora-") as folder:
        # Somebody decides at the first report, so that what is evaluated there is measured as well.
        context = TrialContext(params=params, folder=Path(folder), decide_at=frozenset({1}), threads=threads)
        try:
            peak = footprints.measure(trainer, context)
        except TrialFailure as failure:
            if failure.cause is Cause.OUT_OF_MEMORY:
                raise StudyError(
                    f"resources: the configuration that needs the most does not fit ({failure.message}); must be a "
                    "smaller space, or resources.gpu a number"
                ) from None
            raise
    return peak.memory, peak.gpu, peak.device
