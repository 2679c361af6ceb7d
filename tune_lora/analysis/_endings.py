"""Signs in how trials ended: failures and what they share, pruning, and what it all cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from search_spaces.domains import Domain, Number
from trainables.protocol import Cause
from tune_lora import shares, wording
from tune_lora.analysis._domains import is_number
from tune_lora.analysis._evidence import Evidence
from tune_lora.analysis._finding import Finding, Kind, chance, listed, trials
from tune_lora.analysis._permutation import told_apart
from tune_lora.records import StudyRecord, TrialRecord

LEAST_FAILED = 3
"""Failures of one cause below which nothing is said of what they share."""
SLOW_SECONDS = 3600.0
_SHARING = ("diffusion_lora", "llm_lora")
"""Trainers whose trials can share a base."""
END = 0.02
"""Share of a range: what begins so near its end is not said to begin anywhere."""
MANY = 0.1
"""Share of failures from which they are a warning."""
_WHAT_HELPS: Mapping[Cause, str] = {
    Cause.NAN_LOSS: "lower learning rates, more warm-up, clipping, full precision",
    Cause.GRADIENT_EXPLOSION: "lower learning rates, a lower max_grad_norm, more warm-up, a lower alpha ratio",
    Cause.BLACK_IMAGES: "lower learning rates and alpha ratios, more warm-up, clipping",
    Cause.OUT_OF_MEMORY: "smaller batches with accumulation, no very large models or ranks, mixed precision",
    Cause.TRIAL_TIMEOUT: "fewer epochs, or a longer budget.trial_timeout_hours",
    Cause.CRASH: "a bug: the traceback is with the trial in the report and in all_trials.csv",
    Cause.INFRASTRUCTURE: "nothing in the space: nodes or workers were lost, and what was lost was run again",
}


def endings(evidence: Evidence) -> Iterator[Finding]:
    """What the ends of the trials say."""
    finished = [one for one in evidence.record.trials if one.state in ("complete", "pruned", "failed")]
    if not finished:
        yield Finding("no_trials", "info", "no trial has ended yet", {}, "wait, or look at `status RESULTS`")
        return
    yield from _none_left(finished)
    yield from _failures(evidence, finished)
    yield from _cost(evidence.record, finished)


def _none_left(finished: Sequence[TrialRecord]) -> Iterator[Finding]:
    states = Counter(one.state for one in finished)
    numbers = {"finished": len(finished), "failed": states["failed"], "pruned": states["pruned"]}
    if states["failed"] == len(finished):
        causes = _listed_causes(finished)
        yield Finding(
            "all_failed",
            "warning",
            f"{_all(len(finished))} failed ({causes})",
            numbers,
            "run one configuration by itself first: `train --config FILE`; then narrow the space around what works",
        )
    elif not states["complete"]:
        yield Finding(
            "all_pruned",
            "warning",
            f"no trial completed: {states['pruned']} of {trials(len(finished))} pruned, {states['failed']} failed",
            numbers,
            "more warm-up steps (scheduler.n_warmup_steps) and start-up trials, a milder pruner (median, or none), a "
            "narrower space",
        )


def _failures(evidence: Evidence, finished: Sequence[TrialRecord]) -> Iterator[Finding]:
    for cause, n in Counter(one.cause for one in finished if one.state == "failed" and one.cause).most_common():
        failed = [one for one in finished if one.cause is cause]
        share = n / len(finished)
        shared = _shared(evidence, cause) if cause.is_fault_of_configuration else []
        said = f"{n} of {trials(len(finished))} ended in {cause.value.replace('_', ' ')} ({share:.0%})"
        if shared:
            said += f"; they share {listed([text for text, _, _ in shared])}"
        elif cause.is_fault_of_configuration:
            said += f"; nothing that they share is told apart from chance{'' if n >= LEAST_FAILED else ': too few'}"
        kind: Kind = "info" if _is_harmless(cause, share) else "warning"
        numbers = {
            "cause": cause.value,
            "trials": [one.number for one in failed],
            "share": round(share, 3),
            "shared": {name: p for _, name, p in shared},
        }
        yield Finding(f"failed_{cause.value}", kind, said, numbers, _WHAT_HELPS.get(cause, ""))


def _is_harmless(cause: Cause, share: float) -> bool:
    """What the infrastructure ended is run again, and says nothing of the study; a bug is always worth a look."""
    return cause is Cause.INFRASTRUCTURE or (share < MANY and cause is not Cause.CRASH)


def _shared(evidence: Evidence, cause: Cause) -> list[tuple[str, str, float]]:
    """Hyperparameters that go with a cause, told apart from chance by permutation: (in words, name, p)."""
    failed = np.array([one.cause is cause and one.state == "failed" for one in evidence.looked_at], dtype=float)
    if failed.sum() < LEAST_FAILED or not evidence.can_tell:
        return []
    found = told_apart(failed, evidence.columns, seed=2)
    return [(f"{_where(evidence, one.name, failed)} ({chance(one.p)})", one.name, one.p) for one in found]


def _where(evidence: Evidence, name: str, failed: np.ndarray[Any, Any]) -> str:
    """``learning_rate from 1e-4 (4 of 4 failed, 1 of 16 others)``: where a hyperparameter's failures lie."""
    tried = [evidence.record.tried(one).get(name) for one in evidence.looked_at]
    inside = [value for value, bad in zip(tried, failed, strict=True) if bad and value is not None]
    text, within = _numbers_of(evidence.domains[name], inside) or _choice_of(inside)
    rows = np.array([value is not None and within(value) for value in tried])
    there, elsewhere = int(failed[rows].sum()), int(failed[~rows].sum())
    return f"{name} {text}: {there} of {int(rows.sum())} there, {elsewhere} of {int((~rows).sum())} elsewhere"


def _numbers_of(domain: Domain, values: Sequence[Any]) -> tuple[str, Callable[[Any], bool]] | None:
    """The range of some numbers in words, and whether a value lies in it; None where they are no numbers."""
    if not isinstance(domain, Number) or not all(map(is_number, values)):
        return None
    low, high = min(values), max(values)
    ends = [f"from {wording.number(low)}"] if domain.position(low) > END else []
    ends += [f"to {wording.number(high)}"] if domain.position(high) < 1 - END else []
    return " ".join(ends) or "anywhere", lambda value: is_number(value) and low <= value <= high


def _choice_of(values: Sequence[Any]) -> tuple[str, Callable[[Any], bool]]:
    """The most frequent of some choices in words, and whether a value is it."""
    most = Counter(map(str, values)).most_common(1)[0][0] if values else "absent"
    return most, lambda value: str(value) == most


def _cost(record: StudyRecord, finished: Sequence[TrialRecord]) -> Iterator[Finding]:
    timed = [one for one in finished if one.seconds > 0]
    if not timed:
        return
    total, typical = sum(one.seconds for one in timed), median(one.seconds for one in timed)
    done = [one.seconds for one in timed if one.state == "complete"]
    lost = sum(one.seconds for one in timed if one.state == "failed")
    cut = [one for one in timed if one.state == "pruned"]
    saved = sum(max(0.0, median(done) - one.seconds) for one in cut) if done else 0.0
    each = f"typically {wording.duration(typical)} each"
    said = f"{wording.duration(total)} of {shares.time_name(record)} in {trials(len(timed))}, {each}"
    said += ", its share of a base with others" if shares.seats(record) > 1 else ""
    said += f"; {lost / total:.0%} of it went into failures" if lost else ""
    said += f"; pruning saved about {wording.duration(saved)}" if saved else ""
    numbers = {
        "seconds": round(total, 1),
        "median_seconds": round(typical, 1),
        "failed_seconds": round(lost, 1),
        "saved_seconds": round(saved, 1),
        "trials": len(timed),
    }
    yield Finding("cost", "info", said, numbers, _faster(record) if typical >= SLOW_SECONDS else "")


def _faster(record: StudyRecord) -> str:
    slow = "pruning (scheduler: asha), fewer epochs, a smaller split for the search, more slots"
    could_share = record.spec.get("trainer") in _SHARING and shares.seats(record) == 1
    return f"{slow}, several trials on one base (resources.packing: auto)" if could_share else slow


def _listed_causes(finished: Sequence[TrialRecord]) -> str:
    causes = Counter(one.cause.value.replace("_", " ") if one.cause else "unknown" for one in finished)
    return ", ".join(f"{n} {cause}" for cause, n in causes.most_common())


def _all(n: int) -> str:
    return "the only trial" if n == 1 else f"all {n} trials"
