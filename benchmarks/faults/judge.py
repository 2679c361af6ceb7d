"""What a fault has cost a study: read from its store and the epochs that were really begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_lora.store import StudyRecord, TrialRecord


@dataclass(frozen=True)
class Verdict:
    """`lost`, `doubled` and `hung` are lines, each one thing that must not be; `repeated` is the most epochs of one
    trial that were begun again."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    hung: tuple[str, ...]
    repeated: int
    said: int

    def as_mapping(self) -> dict[str, Any]:
        """For a line of results."""
        return asdict(self)


def judge(before: Sequence[TrialRecord], after: StudyRecord, traces: Path, total: int, ended: bool) -> Verdict:
    """`before` are the trials that had finished at the fault, `total` what the study was to have, `ended` whether its
    command came to an end."""
    hung = [] if ended else ["the study did not end"]
    hung += [f"trial {one.number} is {one.state}" for one in after.trials if one.state in ("running", "waiting")]
    counted = sum(trial.counts for trial in after.trials)
    lost, doubled = _gaps(after), _twice(after)
    if counted < total:
        lost.append(f"{counted} trials of {total}")
    if counted > total:
        doubled.append(f"{counted} trials of {total}")
    now = {trial.number: trial for trial in after.trials}
    lost += [f"trial {one.number} is not what it was" for one in before if now.get(one.number) != one]
    return Verdict(tuple(lost), tuple(doubled), tuple(hung), repeated(traces), len(after.incidents))


def repeated(traces: Path) -> int:
    """The most epochs of one trial that were begun more than once, counted as often as they were."""
    epochs = [Counter(path.read_text().split()) for path in traces.glob("*.txt")]
    return max((sum(count - 1 for count in one.values()) for one in epochs), default=0)


def _gaps(after: StudyRecord) -> list[str]:
    """Reports that are missing: the history of a trial that counts has every budget from 1 on."""
    found = []
    for trial in after.trials:
        last = int(trial.config["max_train_epochs"]) if trial.state == "complete" else trial.last_budget
        if trial.counts and list(trial.history) != list(range(1, last + 1)):
            found.append(f"trial {trial.number}, {trial.state}: reports {list(trial.history)} of {last}")
    return found


def _twice(after: StudyRecord) -> list[str]:
    origins = Counter(trial.provenance for trial in after.trials if trial.provenance != "sampler")
    return [f"{origin} ran {count} times" for origin, count in origins.items() if count > 1]
