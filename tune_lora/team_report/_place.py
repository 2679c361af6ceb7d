"""Where a study's runs are at W&B, and how they are named and addressed there. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.team_report._parts import Link, Runs
from tune_lora.tracking import run_id


@dataclass(frozen=True)
class There:
    """A study at W&B.

    Args:
        site: address of the web pages, such as ``https://wandb.ai``.
        entity: user or team that the runs belong to.
        project: their project.
        group: name of the study, which is the group of its runs.
        token: tells the study from another one of its name (`tune_lora.tracking.run_id`).
        runs: ids of all runs of that group.
    """

    site: str
    entity: str
    project: str
    group: str
    token: str
    runs: frozenset[str]

    def run_of(self, trial: int) -> str:
        """The id of a trial's run."""
        return run_id(self.token, trial)

    def has(self, trial: int) -> bool:
        """Whether a trial's run is there."""
        return self.run_of(trial) in self.runs

    def link(self, trial: int, text: str = "") -> Link:
        """A trial's number, which leads to its run where that is there."""
        parts = (quote(one, safe="") for one in (self.entity, self.project, "runs", self.run_of(trial)))
        return Link(text or str(trial), f"{self.site.rstrip('/')}/{'/'.join(parts)}" if self.has(trial) else "")

    def all_runs(self, record: StudyRecord) -> Runs:
        """The study's runs: its group, or each of them where another study of this name has runs in the group."""
        mine = {self.run_of(trial.number) for trial in record.trials}
        if self.runs <= mine:
            return Runs(f"all trials of {self.group}", group=self.group)
        return Runs(f"all trials of {self.group}", ids=tuple(sorted(self.runs & mine)))

    def some_runs(self, label: str, trials: Collection[TrialRecord]) -> Runs | None:
        """The runs of some trials; None where none of them is there."""
        found = tuple(dict.fromkeys(self.run_of(one.number) for one in trials if self.has(one.number)))
        return Runs(label, ids=found) if found else None
