"""Figures out of pairs of studies that `benchmarks.packed_makespan` has run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks import common
from tune_lora.records import StudyRecord, TrialRecord

LOSSES = ("train_loss", "val_loss")
CLOSE = 1e-3
"""A trial at a high rate amplifies rounding, alone as well; others stay within this."""

History = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Ran:
    """A study that has run, and the seconds of the whole command."""

    record: StudyRecord
    seconds: float

    @property
    def makespan(self) -> float:
        """Seconds from the first trial's start to the last one's end."""
        began = [trial.started for trial in self.record.trials if trial.started is not None]
        ended = [trial.finished for trial in self.record.trials if trial.finished is not None]
        return (max(ended) - min(began)).total_seconds()

    @property
    def epochs(self) -> int:
        """Trained in all."""
        return sum(trial.last_budget for trial in self.record.trials)

    @cached_property
    def best(self) -> TrialRecord:
        """The completed trial with the best score."""
        if (best := self.record.best) is None:
            raise SystemExit("no trial of the study completed")
        return best

    @property
    def score(self) -> float:
        """The best."""
        assert self.best.value is not None
        return self.best.value


Pair = Mapping[str, Ran]
"""One study by side."""


def loss_distances(one: StudyRecord, other: StudyRecord) -> dict[int, float]:
    """By trial the largest relative distance of its losses after the same epoch, as far as neither was stopped.

    Raises:
        ValueError: trials of one number are not the same.
    """
    found = {}
    for mine, theirs in zip(one.trials, other.trials, strict=True):
        if (mine.config, mine.seed) != (theirs.config, theirs.seed):
            raise ValueError(f"trial {mine.number} is not the same in both studies")
        found[mine.number] = history_distance(mine.history, theirs.history)
    return found


def history_distance(mine: History, theirs: History) -> float:
    """The largest relative distance of two losses after the same epoch; 0 where there is none."""
    pairs = [(mine[budget], theirs[budget]) for budget in mine.keys() & theirs.keys()]
    apart = (abs(one[name] - other[name]) / abs(other[name]) for one, other in pairs for name in LOSSES)
    return max(apart, default=0.0)


def shown(ran: Ran) -> str:
    """In words."""
    best = f"best {ran.score:.4f} (trial {ran.best.number})"
    return f"{ran.makespan:.0f} s, command {ran.seconds:.0f} s, {ran.epochs} epochs, {best}"


def figures(
    pairs: Mapping[str, Sequence[Pair]], scores: Sequence[float], controls: Mapping[int, float], where: str
) -> list[dict[str, Any]]:
    """Ratios of makespans, distances of best scores over seeds' `scores`, distances of losses. `controls` are how far
    trials are from themselves."""
    spread = max(scores) - min(scores)
    of_seeds = f"a spread is {spread:.4f}, of the best configuration over {len(scores)} seeds"
    found = []
    for form in pairs:
        name = "packed" if form == "same trials" else f"packed_{form}"
        told = "; ".join(", ".join(f"{side} {shown(pair[side])}" for side in pair) for pair in pairs[form])
        found.append(
            common.result(
                f"{name}_makespan_ratio", measured=_ratio([_spans(pair) for pair in pairs[form]]), goal="<= 0.7",
                unit="makespan packed / unpacked", runs=len(pairs[form]),
                note=f"{where}, {form}; {told}",
            )
        )  # fmt: skip
        found.append(
            common.result(
                f"{name}_command_ratio", measured=_ratio([_commands(pair) for pair in pairs[form]]), goal=None,
                unit="whole command, packed / unpacked", runs=len(pairs[form]),
                note="Python and Ray started, base judged, tables and report written included",
            )
        )  # fmt: skip
        worse = max(pair["packed"].score - pair["unpacked"].score for pair in pairs[form])
        found.append(
            common.result(
                f"{name}_best_score", measured=round(worse / spread, 4), goal="<= 1",
                unit="spreads that the packed best is worse by (most of the runs)", runs=len(pairs[form]),
                note=f"{form}; {of_seeds}",
            )
        )  # fmt: skip
    return [*found, _losses(pairs["same trials"][0], controls)]


def _losses(pair: Pair, controls: Mapping[int, float]) -> dict[str, Any]:
    apart = loss_distances(pair["packed"].record, pair["unpacked"].record)
    ends = [
        mine.state == theirs.state and mine.last_budget == theirs.last_budget
        for mine, theirs in zip(pair["packed"].record.trials, pair["unpacked"].record.trials, strict=True)
    ]
    told = ", ".join(f"trial {number}: {apart[number]:.1g} (alone {alone:.1g})" for number, alone in controls.items())
    return common.result(
        "packed_study_losses", measured=float(f"{statistics.median(apart.values()):.3g}"), goal=None,
        unit="largest relative distance of a trial's losses, median over trials", runs=1,
        note="same trials, training and validation loss after every epoch that both sides trained; "
        f"{sum(far <= CLOSE for far in apart.values())} of {len(apart)} trials within {CLOSE:g}; furthest apart, and "
        f"how far each is from itself where it is trained alone on one thread and on two: {told or 'none'}; "
        f"{sum(ends)} trials ended at the same epoch in the same way",
    )  # fmt: skip


def _spans(pair: Pair) -> float:
    return pair["packed"].makespan / pair["unpacked"].makespan


def _commands(pair: Pair) -> float:
    return pair["packed"].seconds / pair["unpacked"].seconds


def _ratio(ratios: Sequence[float]) -> float:
    return round(statistics.median(ratios), 3)
