"""What measuring a study's leaders again has shown: pure values, made of measurements and kept with the study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tune_lora.records import Direction, StudyRecord, TrialRecord

Kind = Literal["checkpoint", "retrained"]
CONFIDENCE = 0.9
FEW_SEEDS = 2
"""Without as many there is no interval."""
CLEAR = 0.8
"""The probability of being the best from which on a winner is called clear."""
RIVAL = 0.1
"""That of a candidate which may still be the best."""
METHOD = (
    "a hierarchical model of the paired values by seed (worths, seeds and each candidate's noise are drawn around "
    "common values; the search's value counts as one more measurement when candidates are compared)"
)


@dataclass(frozen=True)
class Candidate:
    """One of the leaders. `searched` is its value in the search, `values` those with new seeds; `mean` is what it is
    expected to be worth, between `low` and `high` with the verdict's confidence; `best` is the probability that it is
    the best of them."""

    trial: int
    searched: float
    values: Mapping[int, float]
    mean: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Luck:
    """How lucky the search's leader was: its value then and now, and its lead over the mean of the others then and now.
    What prompts and seeds do to all is in the values and not in the leads. Better is positive in leads."""

    trial: int
    searched: float
    measured: float
    lead: float
    lead_now: float


@dataclass(frozen=True)
class Verdict:
    """What one way of measuring again says of the leaders, in the search's order. `failed` are those that could not be
    measured with every seed, and why. `trial` is the one to recommend, None where all failed."""

    kind: Kind
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    failed: Mapping[int, str]
    trial: int | None
    luck: Luck | None = None

    def candidate(self, number: int) -> Candidate:
        """The candidate of a trial. Raises KeyError where it is none."""
        return {one.trial: one for one in self.candidates}[number]

    @property
    def winner(self) -> Candidate | None:
        """The one to recommend."""
        return None if self.trial is None else self.candidate(self.trial)

    @property
    def rivals(self) -> list[Candidate]:
        """Others that may still be the best, the likeliest first; empty where the winner is clear."""
        if self.winner is None or self.winner.best >= CLEAR:
            return []
        others = [one for one in self.candidates if one.trial != self.trial and one.best >= RIVAL]
        return sorted(others, key=lambda one: -one.best)


@dataclass(frozen=True)
class Verification:
    """All verdicts on a study, the deciding one last. `n_trials` is how many trials the study had; `asked` how many
    leaders and seeds were asked for."""

    metric: str
    direction: Direction
    confidence: float
    n_trials: int
    asked: tuple[int, int]
    at: str
    verdicts: tuple[Verdict, ...]
    untrained: Mapping[int, float] = field(default_factory=dict)
    """What the untrained base is worth by the same prompts and seeds, by seed; empty where it was not judged."""

    @property
    def deciding(self) -> Verdict:
        """The verdict that the recommendation rests on: of the trained again where there is one, for it holds of the
        configuration and not of one training only."""
        return self.verdicts[-1]

    def as_dict(self) -> dict[str, Any]:
        """What is kept with the study and in ``verified.json``; JSON-able, and `of` reads it back."""
        said = self.deciding
        # What readers of a record need stands on top; the rest is for whoever asks how.
        top: dict[str, Any] = {
            "trial": said.trial,
            "kind": said.kind,
            "candidates": [_plain(one) for one in said.candidates],
        }
        top["failed"] = {str(number): why for number, why in said.failed.items()}
        if self.untrained:
            by_seed = {str(seed): value for seed, value in self.untrained.items()}
            top["untrained"] = {"mean": statistics.fmean(by_seed.values()), "values": by_seed}
        rest = {name: getattr(self, name) for name in ("metric", "direction", "confidence", "n_trials", "at")}
        verdicts = [_plain_verdict(one) for one in self.verdicts]
        return {**top, **rest, "asked": list(self.asked), "method": METHOD, "verdicts": verdicts}


def judge(
    kind: Kind,
    leaders: Sequence[TrialRecord],
    values: Mapping[int, Mapping[int, float]],
    failed: Mapping[int, str],
    seeds: Sequence[int],
    direction: Direction,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict on leaders of a search.

    Args:
        kind: what was measured.
        leaders: in the search's order, each with its value.
        values: the metric by trial and seed.
        failed: those that failed, and why; they are not compared.
        seeds: all that were asked for; a leader without a value of each is not compared.
        direction: of the metric.
        confidence: of the intervals.
    """
    from tune_lora import verify_statistics  # it loads NumPy, and whoever lists trials does without

    failed = {**_incomplete(leaders, values, seeds), **failed}
    compared = [one for one in leaders if one.number not in failed]
    if not compared:
        return Verdict(kind, tuple(seeds), (), failed, None)
    rows = [[values[one.number][seed] for seed in seeds] for one in compared]
    searched = [_value(one) for one in compared]
    found = verify_statistics.estimates(rows, searched, maximize=direction == "maximize", confidence=confidence)
    candidates = tuple(
        Candidate(one.number, _value(one), dict(zip(seeds, row, strict=True)), it.mean, it.low, it.high, it.best)
        for one, row, it in zip(compared, rows, found, strict=True)
    )
    winner = candidates[verify_statistics.chosen(found, maximize=direction == "maximize")]
    luck = luck_of(candidates, direction) if leaders[0].number == candidates[0].trial else None
    return Verdict(kind, tuple(seeds), candidates, failed, winner.trial, luck)


def luck_of(candidates: Sequence[Candidate], direction: Direction) -> Luck:
    """How lucky the first of them was in the search. Plain means of what was measured: no model is asked."""
    sign = 1 if direction == "maximize" else -1
    leader, *others = candidates
    now = statistics.fmean(leader.values.values())
    if not others:
        return Luck(leader.trial, leader.searched, now, 0.0, 0.0)
    lead = sign * (leader.searched - statistics.fmean(one.searched for one in others))
    lead_now = sign * (now - statistics.fmean(statistics.fmean(one.values.values()) for one in others))
    return Luck(leader.trial, leader.searched, now, lead, lead_now)


def of(record: StudyRecord) -> Verification | None:
    """What was kept with a study; None where nothing was, or where it holds less than a verification."""
    kept = record.verification
    if not kept.get("verdicts"):
        return None
    verdicts = tuple(_verdict(one) for one in kept["verdicts"])
    named = {name: kept[name] for name in ("metric", "direction", "confidence", "n_trials", "at")}
    untrained = {int(seed): value for seed, value in kept.get("untrained", {}).get("values", {}).items()}
    return Verification(**named, asked=(kept["asked"][0], kept["asked"][1]), verdicts=verdicts, untrained=untrained)


def _incomplete(
    leaders: Sequence[TrialRecord], values: Mapping[int, Mapping[int, float]], seeds: Sequence[int]
) -> dict[int, str]:
    missing = {one.number: [seed for seed in seeds if seed not in values.get(one.number, {})] for one in leaders}
    return {number: f"no value with seed {lost[0]}" for number, lost in missing.items() if lost}


def _value(trial: TrialRecord) -> float:
    if trial.value is None:
        raise ValueError(f"trial {trial.number} has no value; leaders of a search have one")
    return trial.value


def _plain(candidate: Candidate) -> dict[str, Any]:
    return {**asdict(candidate), "values": {str(seed): value for seed, value in candidate.values.items()}}


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "trial": verdict.trial,
        "seeds": list(verdict.seeds),
        "failed": {str(number): why for number, why in verdict.failed.items()},
        "candidates": [_plain(one) for one in verdict.candidates],
        "luck": None if verdict.luck is None else asdict(verdict.luck),
    }


def _verdict(kept: Mapping[str, Any]) -> Verdict:
    candidates = tuple(
        Candidate(**{**one, "values": {int(seed): value for seed, value in one["values"].items()}})
        for one in kept["candidates"]
    )
    failed = {int(number): why for number, why in kept["failed"].items()}
    luck = Luck(**kept["luck"]) if kept["luck"] else None
    return Verdict(kept["kind"], tuple(kept["seeds"]), candidates, failed, kept["trial"], luck)
