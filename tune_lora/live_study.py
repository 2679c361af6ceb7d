"""A stored study as its driver sees it: each trial is read once, and what is written is known without being read back.

A driver asks what the study says at every suggestion and every report. Reading it each time makes a trial the dearer
the more there are; here whoever asks is told what has changed since.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tune_lora import bulk, store
from tune_lora.records import Direction, Objective, StudyRecord, TrialRecord


class LiveStudy:
    """A study with all its trials in memory. Other drivers' trials are seen after `refresh`.

    `trials` are in order of their numbers, which count from 0 without a gap. They change in place. `direction` is that
    of the first objective.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.has_several = len(study.directions) > 1
        self.direction: Direction = "minimize" if study.directions[0] == StudyDirection.MINIMIZE else "maximize"
        self.trials: list[FrozenTrial] = []
        self._records: list[TrialRecord | None] = []
        self._changes: list[int] = []
        self._objectives: tuple[Objective, ...] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Takes in what others have written: trials that are new, and all that can still change."""
        for trial in self.study.get_trials(deepcopy=False):
            known = self.trials[trial.number] if trial.number < len(self.trials) else None
            if known is None or (not known.state.is_finished() and _differs(trial, known)):
                self._take(trial)

    def _take(self, trial: FrozenTrial) -> None:
        if trial.number == len(self.trials):
            self.trials.append(trial)
            self._records.append(None)
        else:
            self.trials[trial.number] = trial
        self._note(trial.number)

    def _note(self, number: int) -> None:
        self._records[number] = None
        self._changes.append(number)

    # --- what it says ------------------------------------------------------------------------------------------------

    def since(self, mark: int) -> tuple[list[FrozenTrial], int]:
        """The trials that have changed since a mark (0: all), each once, and the mark of now."""
        numbers = dict.fromkeys(self._changes[mark:])
        return [self.trials[number] for number in numbers], len(self._changes)

    def of(self, number: int) -> TrialRecord:
        """The record of one trial."""
        found = self._records[number]
        if found is None:
            found = self._records[number] = store.record(self.trials[number])
        return found

    def record(self) -> StudyRecord:
        """The record of the study as it is now."""
        if self._objectives is None:
            self._objectives = store.objectives_of(self.study)
        return store.record_of(self.study, map(self.of, range(len(self.trials))), self._objectives)

    # --- what is written ---------------------------------------------------------------------------------------------

    def create(
        self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]
    ) -> FrozenTrial:
        """A new RUNNING trial with all it is known by."""
        trial = bulk.create(self.study, params, distributions, _as_stored(attributes))
        if trial.number > len(self.trials):  # other drivers have begun trials meanwhile
            self.refresh()
        if trial.number == len(self.trials):
            self._take(trial)
        return self.trials[trial.number]

    def write(
        self, trial: FrozenTrial, attributes: Mapping[str, Any], scores: Mapping[int, float] | None = None
    ) -> None:
        """Writes attributes, and scores by budget, on a running trial."""
        entry = bulk.Entry(_as_stored(attributes), scores or {})
        self._write(trial, entry)

    def end(
        self,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes how a trial ended. As Optuna has it, a pruned one is worth the last score that it reported.

        Raises:
            ValueError: a value is NaN, or there are not as many as the study has objectives.
        """
        if values is not None and (len(values) != len(self.study.directions) or any(map(math.isnan, values))):
            raise ValueError(f"got the values {list(values)}; must be {len(self.study.directions)} numbers")
        if state == TrialState.PRUNED and trial.last_step is not None and len(self.study.directions) == 1:
            last = trial.intermediate_values[trial.last_step]
            values = None if math.isnan(last) else [last]
        entry = bulk.Entry(_as_stored(attributes or {}), state=state, values=values)
        self._write(trial, entry)

    def _write(self, trial: FrozenTrial, entry: bulk.Entry) -> None:
        if not bulk.write(self.study._storage, trial._trial_id, entry):
            self.refresh()  # it is another driver's by now
            return
        trial = self.trials[trial.number]
        trial.user_attrs.update(entry.attributes)
        trial.intermediate_values.update(entry.scores)
        if entry.state is not None:
            trial.state = entry.state
            trial.values = None if entry.values is None else list(entry.values)
            trial.datetime_complete = dt.datetime.now()  # noqa: DTZ005 - Optuna keeps local times without a zone
        self._note(trial.number)


def _as_stored(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """As they will be read back: what is in memory must not differ from what a later run of the study sees."""
    found: dict[str, Any] = json.loads(json.dumps(dict(attributes)))
    return found


def _differs(now: FrozenTrial, before: FrozenTrial) -> bool:
    """Whether an unfinished trial is another than it was; values may have changed where none was added."""
    return _told(now) != _told(before)


def _told(trial: FrozenTrial) -> tuple[TrialState, str]:
    # As text, in which a NaN is like another.
    return trial.state, json.dumps([trial.user_attrs, trial.intermediate_values], sort_keys=True)
