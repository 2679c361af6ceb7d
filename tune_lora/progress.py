"""What must be known of a study's trials to decide what comes next, kept as they change."""

from __future__ import annotations

from trainables.protocol import Cause
from tune_lora import store
from tune_lora.live_study import LiveStudy
from tune_lora.records import RETRY, TrialRecord


class Progress:
    """Counts of a study: `look` takes in what has changed, in time that does not grow with the study.

    `counted` is how many trials count towards the total; `begun` holds the provenance of every trial.
    """

    def __init__(self, live: LiveStudy) -> None:
        self._live, self._mark = live, 0
        self._ended: set[int] = set()
        self._infrastructure: dict[int, TrialRecord] = {}
        self.counted = 0
        self.begun: set[str] = set()
        self.look()

    def look(self) -> None:
        """Takes in what has changed."""
        changed, self._mark = self._live.since(self._mark)
        for trial in changed:
            provenance = trial.user_attrs.get(store.PROVENANCE, "")
            self.begun.add(provenance)
            has_ended = trial.state.is_finished() and trial.number not in self._ended
            if has_ended:
                self._ended.add(trial.number)
                self.counted += self._live.of(trial.number).counts
            if provenance.startswith(RETRY) or (has_ended and _was_lost(self._live.of(trial.number))):
                self._infrastructure[trial.number] = self._live.of(trial.number)

    @property
    def lost_and_retried(self) -> list[TrialRecord]:
        """Trials that the infrastructure ended, and those that ran one of them again, by number."""
        return [self._infrastructure[number] for number in sorted(self._infrastructure)]


def _was_lost(trial: TrialRecord) -> bool:
    return trial.cause is Cause.INFRASTRUCTURE
