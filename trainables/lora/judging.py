"""Reports of several trials of a pack that are due at the same step, measured together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from trainables.lora.course import Due
from trainables.lora.ground import Ground, PackedTask, Panel
from trainables.lora.trial import Trial
from trainables.protocol import Report, TrialFailure

Seated = Mapping[int, tuple[PackedTask, Trial]]
"""Who is judged, by slot."""


def reports(ground: Ground, seated: Seated, panel: Panel) -> dict[int, Report | TrialFailure]:
    """The report of each slot, or how its trial fails. The models are in evaluation mode; everybody who is judged has
    its judged weights in place meanwhile, and nobody else's are touched."""
    dues = {slot: trial.due() for slot, (_, trial) in seated.items()}
    with ExitStack() as standing:
        for _, trial in seated.values():
            standing.enter_context(trial.lane.judged())
        try:
            measured = _measured(ground, seated, dues, panel)
        finally:
            panel.routing.silence()
        return {slot: _reported(slot, trial, dues[slot], measured[slot], panel) for slot, (_, trial) in seated.items()}


Measured = tuple[dict[str, float], Mapping[str, Path]]


def _measured(
    ground: Ground, seated: Seated, dues: Mapping[int, Due], panel: Panel
) -> dict[int, Measured | TrialFailure]:
    """What all are measured by; the costly measures only of those that are due for them and have not failed."""
    found: dict[int, Measured | TrialFailure] = {}
    values = ground.validated([task for task, _ in seated.values()], panel)
    for slot, one in zip(seated, values, strict=True):
        found[slot] = one if isinstance(one, TrialFailure) else (one, {})
    looks = [slot for slot in seated if dues[slot].looks and not isinstance(found[slot], TrialFailure)]
    if not looks:
        return found
    looked = ground.looked([(seated[slot][0], dues[slot].budget) for slot in looks], panel)
    for slot, seen in zip(looks, looked, strict=True):
        before = found[slot]
        if isinstance(seen, TrialFailure) or isinstance(before, TrialFailure):
            found[slot] = seen if isinstance(seen, TrialFailure) else before
        else:
            found[slot] = (before[0] | seen[0], seen[1])
    return found


def _reported(
    slot: int, trial: Trial, due: Due, measured: Measured | TrialFailure, panel: Panel
) -> Report | TrialFailure:
    if isinstance(measured, TrialFailure):
        return measured
    try:
        with panel.alone(slot):
            return trial.reported(due, *measured)
    except TrialFailure as failure:
        return failure
    finally:
        panel.charge({slot: 1})
