"""Signs in the hyperparameters: which matter, which work together, and where their best values lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from tune_lora import wording
from tune_lora.analysis._domains import is_rate
from tune_lora.analysis._edges import VERY_NEAR, at_edge, edges, gaps, is_enough, outside, ranges_of
from tune_lora.analysis._evidence import Evidence
from tune_lora.analysis._finding import Finding, chance, listed, trials
from tune_lora.analysis._importance import Importance, importances
from tune_lora.analysis._permutation import LEVEL

FIRM = 10
"""Completed trials per hyperparameter from which shares are more than a rough guide."""
SHOWN = 3
_TOP_PLACES = 5


def parameters(evidence: Evidence) -> Iterator[Finding]:
    """What the hyperparameters say."""
    if not evidence.domains or not evidence.ended:
        return
    shares = importances(evidence)
    yield from _rate(evidence, shares)
    yield _importance(evidence, shares)
    yield _interactions(evidence)
    yield from _edges(evidence)
    yield from _outside(evidence)
    for gap in gaps(evidence):
        values = listed([wording.number(value) if isinstance(value, float) else str(value) for value in gap.between])
        yield Finding(
            f"between_{gap.name}",
            "info",
            f"{gap.name}: {gap.best} stands best, and nothing between it and its neighbours was offered",
            {"name": gap.name, "best": gap.best, "offer": list(gap.between)},
            f"offer {values} as well",
        )


def _rate(evidence: Evidence, shares: Sequence[Importance]) -> Iterator[Finding]:
    rates = [name for name in evidence.domains if is_rate(name)]
    if not rates:
        return
    effect = next((one for one in evidence.effects if one.name in rates), None)
    n = len(evidence.ended)
    if effect is not None:
        share = next((one for one in shares if one.name == effect.name), None)
        numbers = {"name": effect.name, "p": effect.p, "trials": n, "share": round(share.share, 3) if share else None}
        said = f"{effect.name} is important: told apart from chance in {trials(n)} ({chance(effect.p)})"
        yield Finding("learning_rate", "good", said, numbers)
    elif not evidence.can_tell:
        yield Finding(
            "learning_rate",
            "info",
            f"not enough trials to say whether {rates[0]} is important: {n} ended",
            {"name": rates[0], "trials": n},
        )
    else:
        yield Finding(
            "learning_rate",
            "info",
            f"{listed(rates)} cannot be told apart from chance in {trials(n)}: a narrow range, much noise, or a broad "
            "optimum",
            {"name": rates[0], "trials": n},
            "widen the range if it was narrow; if it was wide, the result does not hang on it here",
        )


def _importance(evidence: Evidence, shares: Sequence[Importance]) -> Finding:
    n, done = len(evidence.ended), len(evidence.record.ranked())
    told = [f"{one.name} ({chance(one.p)})" for one in evidence.effects]
    numbers: dict[str, Any] = {
        "trials": n,
        "completed": done,
        "level": LEVEL,
        "told_apart": {one.name: one.p for one in evidence.effects},
        "shares": {one.name: [round(one.share, 3), round(one.low, 3), round(one.high, 3)] for one in shares},
        "among_best": {one.name: round(one.among_best, 3) for one in shares},
    }
    if not evidence.can_tell:
        few = f"not enough trials to tell any of {len(evidence.columns)} hyperparameters from chance: {n} ended"
        return Finding("importance", "info", few, numbers, "run more trials")
    said = f"told apart from chance: {listed(told)}" if told else "no hyperparameter is told apart from chance"
    if shares:
        leading = ", ".join(f"{one.name} {_share(one)}" for one in shares[:SHOWN])
        said += f"; of the variance among the {done} completed ones fANOVA gives {leading}"
        said += f"; {_agreement(shares)}"
    if done < FIRM * len(evidence.domains):
        wanted = FIRM * len(evidence.domains)
        said += f"; a rough guide: {done} completed trials, {wanted} would be firm"
    return Finding("importance", "info", said, numbers)


def _share(one: Importance) -> str:
    return f"{one.share:.2f} ({one.low:.2f} to {one.high:.2f} on halves of the trials)"


def _agreement(shares: Sequence[Importance]) -> str:
    best = max(shares, key=lambda one: one.among_best)
    if best.name == shares[0].name:
        return f"PED-ANOVA names {best.name} first as well"
    named = f"{best.name} first ({best.among_best:.2f})"
    return f"PED-ANOVA, which asks what sets the best apart, names {named}: they disagree"


def _interactions(evidence: Evidence) -> Finding:
    if not evidence.can_tell_pairs:
        n = len(evidence.looked_at)
        few = f"not enough trials to tell interactions from chance: {n} ended, {len(evidence.columns)} hyperparameters"
        return Finding("interactions", "info", few, {"trials": n, "found": {}})
    found = {one.name: one.p for one in evidence.interactions}
    numbers = {"trials": len(evidence.looked_at), "found": found, "pairs": len(evidence.pairs), "level": LEVEL}
    if not found:
        none = f"no interaction of two hyperparameters is told apart from chance ({len(evidence.pairs)} pairs)"
        return Finding("interactions", "info", none, numbers)
    said = listed([f"{name} ({chance(p)})" for name, p in found.items()])
    advice = "search them together; the best value of one depends on the other's (figures/contour.png)"
    return Finding("interactions", "info", f"they act together: {said}", numbers, advice)


def _edges(evidence: Evidence) -> Iterator[Finding]:
    found = edges(evidence)
    for one in found:
        numbers = {"name": one.name, "end": one.end, "at": one.at, "near": one.near, "top": one.top}
        numbers |= {"expected": round(one.expected, 2), "p": one.p, "holds_best": one.holds_best}
        place = f"the {one.end} end of {one.name} ({_value(one.at)})"
        beside = f"{one.near} of the best {one.top} trials (evenly drawn: {one.expected:.1f})"
        if one.is_hit:
            yield Finding(
                f"edge_{one.name}",
                "warning",
                f"{place} holds {beside}{' and the best' if one.holds_best else ''}: better values may lie beyond",
                numbers,
                f"widen {one.name} {'downwards' if one.end == 'low' else 'upwards'}",
            )
    hit = {one.name for one in found if one.is_hit}
    yield from _best_at_edge(evidence, hit)
    if found and not hit and is_enough(evidence):
        numbers = {"ranges": len(found) // 2}
        yield Finding("inside", "good", "the best trials do not crowd at the edge of any range", numbers)


def _best_at_edge(evidence: Evidence, hit: Collection[str]) -> Iterator[Finding]:
    alone = {name: value for name, value in at_edge(evidence).items() if name not in hit}
    if not alone:
        return
    n = len(ranges_of(evidence))
    values = listed(
        [f"{name} {_value(value)} (range {evidence.domains[name].describe()})" for name, value in alone.items()]
    )
    why = (
        "the other best trials do not"
        if is_enough(evidence)
        else "trials are too few to say whether it is more than that"
    )
    yield Finding(
        "best_at_edge",
        "info",
        f"the best trial lies at the edge with {values}; of {n} ranges chance gives {2 * VERY_NEAR * n:.1f}, and {why}",
        {"values": alone, "ranges": n, "by_chance": round(2 * VERY_NEAR * n, 2)},
        "no reason yet to widen; search on, and look again",
    )


def _outside(evidence: Evidence) -> Iterator[Finding]:
    by_trial: dict[int, list[Any]] = {}
    for one in outside(evidence):
        by_trial.setdefault(one.trial, []).append(one)
    for number, ones in by_trial.items():
        ranges = {one.name: evidence.domains[one.name].describe() for one in ones}
        values = listed([f"{one.name} {_value(one.value)} (range {ranges[one.name]})" for one in ones])
        place = ones[0].place
        leads = place <= _TOP_PLACES
        yield Finding(
            f"outside_{number}",
            "warning" if leads else "info",
            f"trial {number} ({ones[0].provenance}) came in at place {place} and lies outside the space: {values}",
            {"trial": number, "place": place, "values": {one.name: one.value for one in ones}},
            "widen the space so that it holds it" if leads else "",
        )


def _value(value: Any) -> str:
    return wording.number(value) if isinstance(value, float) else str(value)
