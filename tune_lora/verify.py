"""Whether a study's winner is more than lucky: its leaders measured again by what the search has not seen.

The value that made a trial the best of many is flattering, as every maximum of noisy values is. So the leaders are
measured again with new seeds (and, where images are judged, new prompts), the same for all of them, and the
recommendation rests on that. Everything measured is kept at once; the same command goes on where it was cut short.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna

from cluster.connect import session
from tune_lora import (
    atomic,
    build,
    locks,
    mirroring,
    placing,
    same_study,
    sources,
    store,
    study,
    termination,
    verify_measure,
)
from tune_lora.errors import InputError, StudyError
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.study import NoView, View
from tune_lora.verification import CONFIDENCE, FEW_SEEDS, Kind, Verdict, Verification, judge
from tune_lora.verify_ledger import BASE, Ledger
from tune_lora.verify_measure import Bench

NAME = "verified.json"
"""What was found, in the study's results; the study itself holds the same."""


def verify(
    path: Path, *, top: int = 5, seeds: int = 5, retrain: bool = False, view: View | None = None
) -> tuple[StudyRecord, Verification]:
    """Measures the best `top` trials of a study again with `seeds` new seeds each, and says which one to recommend.

    What they made is judged again where the trainer can; with `retrain` they are trained again as well. The study and
    its results then recommend what did best. More seeds than before add to those that are known.

    Returns:
        the study with its verification, and the verification.

    Raises:
        InputError: there is nothing to verify, or not in this way; nothing has been started.
        StudyError: a training or a judgement failed for a reason that is not the trial's; the same command goes on.
        KeyboardInterrupt: somebody pressed ctrl-C; what was measured is kept.
    """
    view = view or NoView()
    spec = sources.study_to_resume(path)
    record = store.load(spec.folder)
    leaders = leaders_of(record, top, seeds)
    ready = build.plan(spec)
    _check_possible(ready, retrain)
    with locks.driving(spec.storage_url, spec.folder, spec.name):
        opened = store.load_study(spec.folder)
        same_study.settle(opened, ready)
        ledger = Ledger(spec.folder / verify_measure.FOLDER, record.trials)
        with _bench(ready, leaders, ledger, view) as bench:
            _measure(bench, seeds, retrain)
            found = conclude(bench, record, (top, seeds))
        record = _write_down(opened, record, found, ready, view)
    return record, found


def leaders_of(record: StudyRecord, top: int, seeds: int) -> tuple[TrialRecord, ...]:
    """The best completed trials, by the study's own ranking.

    Raises:
        InputError: there are none, the study has several objectives, or too little is asked for.
    """
    if top < 1:
        raise InputError(f"--top: got {top}; must be at least 1")
    if seeds < FEW_SEEDS:
        raise InputError(f"--seeds: got {seeds}; must be at least {FEW_SEEDS}: one value has no spread")
    if record.has_several:
        names = ", ".join(one.name for one in record.objectives)
        raise InputError(f"study {record.name!r} has several objectives ({names}); must have one, for verify picks one")
    if not (leaders := record.ranked()[:top]):
        raise InputError(f"study {record.name!r}: no trial has completed; must have one at least to verify")
    return tuple(leaders)


def conclude(bench: Bench, record: StudyRecord, asked: tuple[int, int]) -> Verification:
    """What the measurements say that are known so far.

    Raises:
        StudyError: no candidate could be measured at all.
    """
    kinds: list[Kind] = ["checkpoint", "retrained"]
    verdicts = [found for kind in kinds if (found := _verdict(bench, record, kind)) is not None]
    if not verdicts or verdicts[-1].trial is None:
        why = "; ".join(f"trial {number}: {text}" for one in verdicts for number, text in one.failed.items())
        raise StudyError(f"study {record.name!r}: no leader could be measured again ({why or 'nothing was measured'})")
    return Verification(
        metric=bench.spec.objective.metric,
        direction=record.direction,
        confidence=CONFIDENCE,
        n_trials=len(record.trials),
        asked=asked,
        at=dt.datetime.now().isoformat(timespec="seconds"),  # noqa: DTZ005 - local, as Optuna's times are
        verdicts=tuple(verdicts),
        untrained=_untrained(bench, verdicts[-1].seeds),
    )


def _untrained(bench: Bench, seeds: Sequence[int]) -> dict[int, float]:
    """What the untrained base is worth with these seeds; empty unless it is known with each."""
    known = {seed: bench.ledger.get("untrained", (BASE, seed)) for seed in seeds}
    values = {seed: one.value for seed, one in known.items() if one is not None and one.value is not None}
    return values if len(values) == len(known) else {}


def _check_possible(ready: build.Plan, retrain: bool) -> None:
    spec = ready.spec
    if retrain or verify_measure.can_rejudge(ready):
        return
    if spec.resources.mirror is not None:
        why = "its trials lie in a mirror, where no other node sees them"
    else:
        why = f"no new seed changes the {spec.objective.metric} of what its trials made (trainer {spec.trainer})"
    raise InputError(f"study {spec.name!r}: {why}; must be verified with --retrain, which trains the leaders again")


@contextmanager
def _bench(
    ready: build.Plan, leaders: tuple[TrialRecord, ...], ledger: Ledger, view: View
) -> Generator[Bench, None, None]:
    """Where the leaders are measured: the study's own resources."""
    spec = ready.spec
    (spec.folder / "logs").mkdir(parents=True, exist_ok=True)
    with session(spec.resources.address) as capacity, termination.exits(), placing.marked(spec) as mark:
        yield Bench(ready, leaders, placing.place(spec, capacity, view, mark), ledger, view)


def _measure(bench: Bench, count: int, retrain: bool) -> None:
    seeds, rejudges = verify_measure.seeds_of(count), verify_measure.can_rejudge(bench.ready)
    if rejudges:
        verify_measure.rejudge_checkpoints(bench, seeds)
    if not retrain:
        return
    verify_measure.retrain(bench, seeds)
    if rejudges:
        verify_measure.rejudge_retrained(bench, seeds)
    else:
        verify_measure.use_trained(bench, seeds)


def _verdict(bench: Bench, record: StudyRecord, kind: Kind) -> Verdict | None:
    """Of all seeds that every leader was measured with; None where these are too few."""
    numbers = [trial.number for trial in bench.leaders]
    seeds = sorted(bench.ledger.seeds(kind, numbers))
    if len(seeds) < FEW_SEEDS:
        return None
    known = {(number, seed): bench.ledger.get(kind, (number, seed)) for number in numbers for seed in seeds}
    failed = {number: one.failed for (number, _), one in known.items() if one is not None and one.failed}
    values: dict[int, dict[int, float]] = {number: {} for number in numbers}
    for (number, seed), one in known.items():
        if one is not None and one.value is not None:
            values[number][seed] = one.value
    return judge(kind, bench.leaders, values, failed, seeds, record.direction)


def _write_down(
    opened: optuna.Study, record: StudyRecord, found: Verification, ready: build.Plan, view: View
) -> StudyRecord:
    """Keeps the verification with the study, and makes its results anew from it."""
    spec, kept = ready.spec, found.as_dict()
    opened.set_user_attr(store.VERIFICATION, kept)
    atomic.write_text(spec.folder / NAME, json.dumps(kept, indent=2, allow_nan=False) + "\n")
    record = replace(record, verification=kept)
    mirroring.fetch(spec, record, view.note)
    with locks.turn(spec.folder / "logs" / "results.lock"):
        study.write_results(record, opened, spec.folder, spec.as_mapping())
    return record
