"""What a study must run before the sampler is asked: pure functions of its trials, and settling what a dead driver
left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from search_spaces.space import Space
from trainables import checkpoints
from trainables.protocol import Cause
from tune_lora.knowledge import Reference
from tune_lora.live_study import LiveStudy
from tune_lora.records import RETRY
from tune_lora.store import TrialRecord
from tune_lora.trial_log import TrialLog

SAMPLER = "sampler"


def settle(
    live: LiveStudy,
    trial_folder: Callable[[int], Path],
    take: Callable[[FrozenTrial], bool] | None = None,
    has_checkpoint: Callable[[Path], bool] = lambda folder: checkpoints.newest(folder) is not None,
    most: int | None = None,
) -> list[int]:
    """Settles RUNNING trials of a driver that is gone: all, or those that `take` makes this driver's, until `most` are
    found that can go on.

    One with a checkpoint can go on: its number is returned. One without is told as failed by the infrastructure, and so
    comes up in `retries_due`.
    """
    to_continue: list[int] = []
    for trial in [one for one in live.trials if one.state == TrialState.RUNNING]:
        if len(to_continue) == most:
            break
        if take is not None and not take(trial):
            continue
        folder = trial_folder(trial.number)
        if has_checkpoint(folder):
            to_continue.append(trial.number)
        else:
            TrialLog(live, trial, folder).fail(Cause.INFRASTRUCTURE, "the study was interrupted before a checkpoint")
    return to_continue


def retries_due(trials: Sequence[TrialRecord], limit: int) -> list[TrialRecord]:
    """Trials that the infrastructure ended and that have not been run again, unless they were already retried `limit`
    times.
    """
    retried = {_retry_of(trial) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.cause is Cause.INFRASTRUCTURE and trial.number not in retried and _attempts(trial, trials) < limit
    ]


def references_due(references: Sequence[Reference], begun: Collection[str]) -> list[Reference]:
    """The reference configurations that this study has not begun, given the provenance of those it has."""
    return [reference for reference in references if reference.provenance not in begun]


def refusals(space: Space, references: Sequence[Reference]) -> dict[str, list[str]]:
    """Why references must not be trained, by provenance: one line for each rule that one breaks."""
    broken = {one.provenance: space.violations(space.resolve(space.complete(one.params))) for one in references}
    return {provenance: [str(violation) for violation in found] for provenance, found in broken.items() if found}


def _retry_of(trial: TrialRecord) -> int | None:
    return int(trial.provenance.removeprefix(RETRY)) if trial.provenance.startswith(RETRY) else None


def _attempts(trial: TrialRecord, trials: Sequence[TrialRecord]) -> int:
    """How often a trial is itself a retry."""
    by_number = {other.number: other for other in trials}
    count, earlier = 0, _retry_of(trial)
    while earlier is not None:
        count += 1
        earlier = _retry_of(by_number[earlier]) if earlier in by_number else None
    return count
