"""What the seconds of a trial mean: all that passed, or its own share of a device that several trials had. Pure.

Trials on one base train at the same time. Their seconds are divided among them, so that those of all trials together
are what the devices worked, and those of one say nothing of how long it took from its start to its end.
"""

from __future__ import annotations

from tune_lora.records import StudyRecord, TrialRecord


def seats(record: StudyRecord) -> int:
    """On how many seats a base of the study had at most; 1: each trial trained alone."""
    return max((trial.pack for trial in record.trials), default=1)


def time_name(record: StudyRecord) -> str:
    """What the seconds of the study's trials are called."""
    return "training time" if seats(record) == 1 else "device time"


def of(trial: TrialRecord) -> str:
    """What its seconds are a share of; empty where they are all that passed."""
    return f"its share of a pack of {trial.pack}" if trial.pack > 1 else ""


def note(record: StudyRecord) -> str:
    """What to say beside the times of trials; empty where they need no word."""
    if (most := seats(record)) == 1:
        return ""
    alone = sum(trial.pack == 1 and trial.seconds > 0 for trial in record.trials)
    others = f"; {alone} of {len(record.trials)} trials trained alone" if alone else ""
    return f"times are device time: a trial's own share of a base with {most} seats{others}"


def devices(record: StudyRecord) -> float:
    """How many devices' seconds pass in one second: each running trial has its part of one. At least one."""
    return max(1.0, sum(1 / trial.pack for trial in record.trials if trial.state == "running"))
