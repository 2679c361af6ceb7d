"""Signs in the course of a study: whether it improves, learns, and has come to rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import mannwhitneyu

from tune_lora.analysis._evidence import Evidence, standing
from tune_lora.analysis._finding import Finding, chance, trials
from tune_lora.analysis._permutation import LEVEL
from tune_lora.records import StudyRecord, TrialRecord

FIRST = 30
"""Finished trials over which the best is expected to improve."""
LAST = 10
"""Finished trials without a better best from which a search has come to rest."""
ENOUGH = 20
"""Finished trials below which nothing is said of a study's course."""
PER_PARAMETER = 10
"""Trials per hyperparameter that a search wants."""
RANDOM = ("random", "grid", "qmc")
"""Samplers that learn nothing from what they see."""


def course(evidence: Evidence) -> Iterator[Finding]:
    """What the order of the trials says."""
    finished = in_order(evidence.record)
    yield from _few(evidence)
    if (same := _identical(evidence.record)) is not None:
        yield same
        return
    if len(finished) < ENOUGH or evidence.record.best is None:
        yield Finding(
            "course",
            "info",
            f"not enough trials to say whether the search is at rest: {len(finished)} finished, {ENOUGH} would do",
            {"finished": len(finished), "needed": ENOUGH},
            "run more trials: `resume RESULTS --n-trials +N`",
        )
        return
    improved = improvements(evidence.record, finished)
    learns = list(_learns(evidence, [finished[place] for place in improved]))
    has_direction = bool(evidence.effects) or any(one.kind == "good" for one in learns)
    yield _improves(finished, improved, has_direction=has_direction)
    yield _rests(finished, improved)
    yield from learns


def in_order(record: StudyRecord) -> list[TrialRecord]:
    """The trials that count, in the order in which they ended."""
    return sorted(
        (one for one in record.trials if one.counts),
        key=lambda one: (one.finished is None, one.finished.timestamp() if one.finished else 0.0, one.number),
    )


def improvements(record: StudyRecord, finished: Sequence[TrialRecord]) -> list[int]:
    """Places in `finished` at which the best became better; the first completed trial is the first of them."""
    places: list[int] = []
    best = float("inf")
    order = {trial.number: place for place, trial in enumerate(record.ranked())}
    sign = 1 if record.direction == "minimize" else -1
    for place, trial in enumerate(finished):
        if trial.number not in order:
            continue
        worth = float(order[trial.number]) if record.has_several else sign * (trial.value or 0.0)
        if worth < best:
            places, best = [*places, place], worth
    return places


def _few(evidence: Evidence) -> Iterator[Finding]:
    varied, n = len(evidence.domains), sum(one.counts for one in evidence.record.trials)
    if varied and n < PER_PARAMETER * varied:
        yield Finding(
            "few_trials",
            "info",
            f"{trials(n)} for {varied} hyperparameters: {n / varied:.1f} each, where {PER_PARAMETER} each "
            f"({PER_PARAMETER * varied}) would make what is said here firm",
            {"trials": n, "hyperparameters": varied, "wanted": PER_PARAMETER * varied},
            "run more trials, or search fewer hyperparameters",
        )


def _identical(record: StudyRecord) -> Finding | None:
    done = record.ranked()
    results = {(one.value, one.values) for one in done}
    if len(done) < 3 or len(results) > 1:
        return None
    return Finding(
        "identical",
        "warning",
        f"all {len(done)} completed trials have the same result: what is searched does not reach what is measured",
        {"completed": len(done)},
        "check that the trainer uses these settings and that the metric is measured anew in each trial",
    )


def _improves(finished: Sequence[TrialRecord], improved: Sequence[int], *, has_direction: bool) -> Finding:
    first = finished[:FIRST]
    done = sum(one.state == "complete" for one in first)
    times = sum(0 < place < len(first) for place in improved[1:])
    by_chance = sum(1 / k for k in range(2, done + 1))
    numbers = {"first": len(first), "improvements": times, "by_chance": round(by_chance, 1)}
    said = (
        f"the best became better {times} time{'' if times == 1 else 's'} over the first {len(first)} finished trials "
        f"(the same results in random order: {by_chance:.1f} on average)"
    )
    if times == 0:
        advice = "widen the space so that it holds known good values, unless the start was a good one already"
        return Finding("improves", "warning", said, numbers, advice)
    # Results in random order improve as well: a good sign where something else shows that there is a direction.
    return Finding("improves", "good" if times > max(1.0, by_chance) and has_direction else "info", said, numbers)


def _rests(finished: Sequence[TrialRecord], improved: Sequence[int]) -> Finding:
    since = len(finished) - 1 - improved[-1]
    by_chance = max(0.0, 1 - LAST / len(finished))
    numbers = {"since_best": since, "finished": len(finished), "wanted": LAST, "by_chance": round(by_chance, 2)}
    if since >= LAST:
        said = f"plateau: the best has not improved over the last {since} finished trials of {len(finished)}"
        return Finding("plateau", "good", said, numbers)
    return Finding(
        "no_plateau",
        "warning",
        f"no plateau: the best was found {trials(since)} before the end, of {len(finished)}",
        numbers,
        "run more trials until the best stands still for 10: `resume RESULTS --n-trials +20`",
    )


def _learns(evidence: Evidence, steps: Sequence[TrialRecord]) -> Iterator[Finding]:
    """Whether later trials are better than the first ones, or the best jumped without a direction."""
    better, p = _later_are_better(evidence)
    if p is not None and p <= LEVEL:
        yield Finding(
            "learns",
            "good",
            f"the search learns: later trials beat those of the start-up in {better:.0%} of pairs ({chance(p)})",
            {"better": round(better, 3), "p": p},
        )
    elif evidence.can_tell and not evidence.effects:
        yield _jumps(evidence, steps)


def _later_are_better(evidence: Evidence) -> tuple[float, float | None]:
    search = evidence.record.spec.get("search") or {}
    if search.get("sampler") in RANDOM:
        return 0.5, None
    telling = {one.number for one in evidence.ended}
    own = [one for one in in_order(evidence.record) if one.provenance == "sampler" and one.number in telling]
    begin = int(search.get("n_startup_trials", 10))
    places = standing(evidence.record, own) if own else np.zeros(0)
    early, late = places[:begin], places[begin:]
    if min(len(early), len(late)) < 5 or np.ptp(places) == 0:
        return 0.5, None
    test = mannwhitneyu(late, early, alternative="less")
    return 1 - float(test.statistic) / (len(early) * len(late)), float(test.pvalue)


def _jumps(evidence: Evidence, steps: Sequence[TrialRecord]) -> Finding:
    among = evidence.distances(evidence.looked_at)
    usual = float(np.median(among[np.triu_indices(len(among), 1)]))
    jumps = np.diag(evidence.distances(steps), 1)
    far = float(np.median(jumps)) if len(jumps) else float("nan")
    how = (
        f"from one best to the next lie {far:.2f} of the space, between any two trials {usual:.2f}"
        if len(jumps)
        else "the best was never replaced"
    )
    n = trials(len(evidence.ended))
    return Finding(
        "jumps",
        "warning",
        f"the best jumps at random: no hyperparameter is told apart from chance in {n}; {how}",
        {"trials": len(evidence.ended), "jump": None if not len(jumps) else round(far, 3), "usual": round(usual, 3)},
        "measure more exactly (more images, more validation data, several seeds), widen the ranges, or run 100 trials "
        "or more; until then the winner may be luck: `verify RESULTS`",
    )
