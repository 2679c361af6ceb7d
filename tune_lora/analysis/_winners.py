"""Signs in the best trials: whether they agree, and whether they beat what was known before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tune_lora import verify_words, wording
from tune_lora.analysis._evidence import Evidence
from tune_lora.analysis._finding import Finding, chance, trials
from tune_lora.analysis._permutation import LEVEL, Array
from tune_lora.records import PRIOR, StudyRecord
from tune_lora.verification import CLEAR

TOP = 5
ENOUGH = 20
"""Completed trials below which nothing is said of how the best agree."""
SIMILAR = 0.25
"""Of the way from the best to the median result: the top five are similar within that. Of 50 results that chance draws
they take up 0.39 of it on average (normal distribution)."""
_DRAWS = 999


def winners(evidence: Evidence) -> Iterator[Finding]:
    """What the best trials say."""
    record = evidence.record
    if record.best is None:
        return
    if len(record.ranked()) < ENOUGH:
        yield Finding(
            "top",
            "info",
            f"not enough trials to say whether the best agree: {len(record.ranked())} completed, {ENOUGH} would do",
            {"completed": len(record.ranked()), "needed": ENOUGH},
        )
    else:
        if not record.has_several:
            yield _similar(evidence)
        yield _together(evidence)
    if not record.has_several:
        yield from _hand_made(record)
        yield from _untrained(record)
    yield from _trust(record)


def noise_of(record: StudyRecord) -> tuple[float, int] | None:
    """Standard deviation of the result between trainings, or judgements, of one configuration, and how many differences
    it rests on; None where nothing was measured twice.

    Where the leaders were verified it is that of their values with the same seeds, what a seed does to all taken out;
    else that of completed trials with the same configuration.
    """
    if record.has_several:
        return None
    measured = [list(one["values"].values()) for one in record.verification.get("candidates", ())]
    if len(measured) > 1 and min(map(len, measured)) > 1 and len(set(map(len, measured))) == 1:
        values = np.array(measured, dtype=float)
        rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        return _pooled(float(np.sum(rest**2)), (values.shape[0] - 1) * (values.shape[1] - 1))
    groups: dict[str, list[float]] = {}
    for one in record.ranked():
        if one.value is not None:
            same = repr(sorted((name, repr(value)) for name, value in one.config.items()))
            groups.setdefault(same, []).append(one.value)
    squares = sum(float(np.var(values)) * len(values) for values in groups.values())
    return _pooled(squares, sum(len(values) - 1 for values in groups.values()))


def _pooled(squares: float, free: int) -> tuple[float, int] | None:
    return (float(np.sqrt(squares / free)), free) if free else None


def _similar(evidence: Evidence) -> Finding:
    results = [float(one.value or 0.0) for one in evidence.record.ranked()]
    spread, usual = abs(results[TOP - 1] - results[0]), abs(float(np.median(results)) - results[0])
    share = spread / usual if usual else 0.0
    numbers: dict[str, float | int | list[float]] = {"top": results[:TOP], "spread": spread, "share": round(share, 3)}
    said = (
        f"the top {TOP} results lie within {wording.number(spread)} "
        f"({wording.number(results[0])} to {wording.number(results[TOP - 1])}), "
        f"{share:.0%} of the way from the best to the median"
    )
    noise = noise_of(evidence.record)
    if noise is not None:
        numbers |= {"noise": noise[0], "noise_from": noise[1]}
        again = f"{wording.number(noise[0])} (sd, from {noise[1]} differences)"
        said += f"; one configuration measured again differs by {again}"
        if spread <= 2 * noise[0]:
            said += ", so their order may be luck"
    if share <= SIMILAR:
        return Finding("top_similar", "good", f"the top {TOP} are similar: {said}", numbers)
    return Finding(
        "top_differ",
        "info",
        f"the top {TOP} differ: {said}",
        numbers,
        "search on: a best that stands alone is either a region that was found late, or luck (`verify RESULTS` tells)",
    )


def _together(evidence: Evidence) -> Finding:
    apart_from = evidence.distances(evidence.record.ranked())
    apart, draw = _spread(apart_from, range(TOP)), np.random.default_rng(3)
    by_chance = [_spread(apart_from, draw.choice(len(apart_from), TOP, replace=False).tolist()) for _ in range(_DRAWS)]
    p = float(np.mean([*(one <= apart for one in by_chance), True]))
    usual = float(np.median(by_chance))
    numbers = {"apart": round(apart, 3), "usual": round(usual, 3), "p": p}
    said = f"they lie {apart:.2f} of the space apart, any {TOP} completed trials {usual:.2f} ({chance(p)})"
    if p <= LEVEL:
        return Finding("top_together", "good", f"the top {TOP} agree in their hyperparameters: {said}", numbers)
    return Finding(
        "top_apart",
        "info",
        f"the top {TOP} do not agree in their hyperparameters: {said}",
        numbers,
        "either several regions do as well, or trials are too few or too noisy to tell",
    )


def _spread(distances: Array, rows: Sequence[int]) -> float:
    """Mean distance between the trials of some rows."""
    some = distances[np.asarray(rows)[:, None], np.asarray(rows)]
    return float(some.sum() / (len(rows) * (len(rows) - 1)))


def _hand_made(record: StudyRecord) -> Iterator[Finding]:
    ranked = record.ranked()
    known = next((one for one in ranked if one.provenance.startswith(PRIOR)), None)
    found = next((one for one in ranked if not one.provenance.startswith(PRIOR)), None)
    if known is None or found is None or known.value is None or found.value is None:
        return
    name, gain = known.provenance.removeprefix(PRIOR), _gain(record, known.value, found.value)
    numbers = {"hand_made": name, "value": known.value, "best": found.value, "percent": gain}
    beside = f"({wording.number(found.value)} against {wording.number(known.value)}{_percent(gain)})"
    if _is_better(record, found.value, known.value):
        said = f"better than the hand-made configuration {name}: trial {found.number} {beside}"
        yield Finding("beats_hand_made", "good", said, numbers)
        return
    yield Finding(
        "worse_than_hand_made",
        "warning",
        f"no better than the hand-made configuration {name}: the best that was found is trial {found.number} {beside}",
        numbers,
        "more trials (100 or more), and a wider space that holds the known good values; until then keep that one",
    )


def _untrained(record: StudyRecord) -> Iterator[Finding]:
    base, best = record.untrained, record.best
    if base is None or best is None or best.value is None or _is_better(record, best.value, base):
        return
    yield Finding(
        "worse_than_untrained",
        "warning",
        f"no better than the {record.untrained_name}: {wording.number(best.value)} against {wording.number(base)}",
        {"untrained": base, "best": best.value},
        "check the data and the metric; then lower learning rates or fewer epochs",
    )


def _trust(record: StudyRecord) -> Iterator[Finding]:
    best, n = record.best, len(record.ranked())
    if best is None:
        return
    if not record.is_verified:
        yield Finding(
            "not_verified",
            "info",
            f"not verified: trial {best.number} may be the luckiest of {trials(n, 'completed trial')}, not the best",
            {"trial": best.number, "completed": n},
            "`verify RESULTS` evaluates the top five again with other seeds and prompts",
        )
    elif (winner := record.winner) is not None:
        known = {one["trial"]: one["best"] for one in record.verification.get("candidates", ())}
        sure = known.get(winner.number)
        clear = sure is None or sure >= CLEAR
        advice = "" if clear else "more seeds tell them apart: `verify RESULTS --seeds 10`"
        numbers = {"trial": winner.number, "probability": sure}
        yield Finding("verified", "good" if clear else "info", verify_words.note(record), numbers, advice)


def _is_better(record: StudyRecord, one: float, other: float) -> bool:
    return one < other if record.direction == "minimize" else one > other


def _gain(record: StudyRecord, known: float, found: float) -> float | None:
    if not known:
        return None
    better = known - found if record.direction == "minimize" else found - known
    return round(100 * better / abs(known), 2)


def _percent(gain: float | None) -> str:
    return "" if gain is None else f", {abs(gain):.1f}% {'better' if gain >= 0 else 'worse'}"
