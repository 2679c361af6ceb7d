"""What the next study starts with: the best configurations, trained again, and all results, told to its sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_spaces.expressions import Expression, parse
from search_spaces.space import Space
from tune_lora import verify_words, wording
from tune_lora.knowledge import CARRIED, CannotCarry, Knowledge, translate
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.trainers import KINDS

TOP = 3
"""How many of the best are trained again: each costs a trial, and shows how much of the old result was luck."""
TOP_OF_SEVERAL = 5
"""With several objectives, of which no results can be told."""
_RATIOS = {"network_alpha_ratio": ("network_alpha", "network_dim"), "lora_alpha_ratio": ("lora_alpha", "lora_rank")}


@dataclass(frozen=True)
class First:
    """Configurations that are trained first, as `search.start_with` takes them, and why others are not."""

    entries: tuple[dict[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Carried:
    """What becomes of the earlier results: how many the sampler is told, how many are only shown since it learns from
    none, and sentences about those that lie outside or cannot be converted."""

    told: int = 0
    shown: int = 0
    left_out: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


def mapping_between(record: StudyRecord, space: Space) -> dict[str, str]:
    """Expressions for parameters of `space` that the earlier trials have under no such name: an alpha ratio out of
    alpha and rank, a setting out of the other name that the trainer knows it by."""
    known = {name for one in record.trials for name in one.config}
    found = {}
    for name in space.parameters:
        if name in known:
            continue
        alpha, rank = _RATIOS.get(name, ("", ""))
        if alpha in known and rank in known:
            found[name] = f"{alpha} / {rank}"
        elif (other := _other_name(record, name)) in known:
            found[name] = other
    return found


def _other_name(record: StudyRecord, name: str) -> str:
    kind = KINDS.get(str(record.spec.get("trainer", "diffusion_lora")))
    pairs = kind.said_twice if kind else ()
    both_ways = [*pairs, *((other, one) for one, other in pairs)]
    return next((other for one, other in both_ways if one == name), "")


def first_of(record: StudyRecord, space: Space, maps: Mapping[str, str]) -> First:
    """The best trials in terms of `space`, verified ones first; a value outside it becomes the nearest inside."""
    expressions = {name: parse(text) for name, text in maps.items()}
    entries: list[dict[str, Any]] = []
    left_out: list[str] = []
    for trial in _in_order(record)[: TOP_OF_SEVERAL if record.has_several else TOP]:
        try:
            entry = _entry(record, trial, space, expressions)
        except CannotCarry as reason:
            left_out.append(f"trial {trial.number} is not trained again: {reason}")
            continue
        if any(other["params"] == entry["params"] for other in entries):
            left_out.append(f"trial {trial.number} is not trained again: the same as a better one in this space")
        else:
            entries.append(entry)
    return First(tuple(entries), tuple(left_out))


def _in_order(record: StudyRecord) -> list[TrialRecord]:
    """The verified trials before the others, the likeliest best first."""
    known = {one["trial"]: float(one["best"]) for one in record.verification.get("candidates", ())}
    known |= {} if record.verified is None else {record.verified.number: 2.0}
    return sorted(record.ranked(), key=lambda one: -known.get(one.number, -1.0))


def _entry(
    record: StudyRecord, trial: TrialRecord, space: Space, expressions: Mapping[str, Expression]
) -> dict[str, Any]:
    made = translate(trial.config, space, expressions=expressions, move=True)
    again = verify_words.marks(record, [trial.number]).get(trial.number, "")
    is_winner = record.verified is not None and record.verified.number == trial.number
    trust = f"measured again {again}" if again else "verified" if is_winner else "not verified"
    changed = f"; {'; '.join(made.notes)}" if made.notes else ""
    return {
        "name": f"{record.name}-{trial.number}",
        "note": f"trial {trial.number} of {record.name}, {wording.scored(record, trial)}, {trust}{changed}",
        "params": dict(made.params),
    }


def carried(knowledge: Knowledge, label: str) -> Carried:
    """What `knowledge` takes over of the earlier study, by the numbers of its trials."""
    sources = [source for source in knowledge.sources if source.label == label]
    reasons: dict[str, list[str]] = {}
    for source in sources:
        for one in source.left_out:
            number = one.provenance.removeprefix(f"{CARRIED}{label}#")
            reasons.setdefault(one.reason, []).append(number)
    left_out = [f"not told, {reason}: {_numbers(numbers)}" for reason, numbers in reasons.items()]
    told = sum(len(source.told) for source in sources)
    return Carried(told, sum(len(source.points) for source in sources) - told, tuple(left_out))


def _numbers(numbers: Sequence[str]) -> str:
    return f"trial{'' if len(numbers) == 1 else 's'} {', '.join(numbers)}"
