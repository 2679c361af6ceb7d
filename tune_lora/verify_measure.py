"""Measuring a study's leaders again, on the study's own resources: what they made is judged with new seeds, or they are
trained again with new seeds by a study of their own. All that is measured is kept at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import pool
from search_spaces.space import Space
from trainables.protocol import Rejudging, TrialContext, TrialFailure
from tune_lora import store, study, trainers
from tune_lora.build import Plan
from tune_lora.errors import StudyError, TuneLoraError
from tune_lora.placing import Slots
from tune_lora.records import PRIOR, StudyRecord, TrialRecord
from tune_lora.scheduler_spec import SchedulerSpec
from tune_lora.spec import StudySpec
from tune_lora.study import View
from tune_lora.verify_ledger import BASE, Batch, Kind, Ledger, Measured, Pair

FOLDER = "verify"
"""Below a study's results."""
FIRST_SEED = 900_000_000
"""New seeds begin so far from those of searches and of ablations."""


_IMAGES = {"checkpoint": "images", "retrained": "images-retrained", "untrained": "images-untrained"}


def seeds_of(count: int) -> tuple[int, ...]:
    """The first `count` new seeds: the same for every candidate and every study, so that more of them add to fewer."""
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


@dataclass(frozen=True)
class Bench:
    """What measuring needs: the study, who leads it, where its trials go, and what is known so far."""

    ready: Plan
    leaders: tuple[TrialRecord, ...]
    placed: Slots
    ledger: Ledger
    view: View

    @property
    def spec(self) -> StudySpec:
        """The study's own settings."""
        return self.ready.spec

    @property
    def folder(self) -> Path:
        """Where all that verifying makes lies."""
        return self.spec.folder / FOLDER

    def of(self, number: int) -> TrialRecord:
        """The leader of a number."""
        return next(trial for trial in self.leaders if trial.number == number)


def can_rejudge(ready: Plan) -> bool:
    """Whether what trials made can be judged again without training, by the study's objective."""
    trainer, mirror = ready.trainer, ready.spec.resources.mirror
    return isinstance(trainer, Rejudging) and ready.spec.objective.metric in trainer.rejudged and mirror is None


# --- judged again ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One judgement: of what lies in `made`, or of the untrained base where that is None, for a pair."""

    kind: Kind
    pair: Pair
    made: Path | None

    def __str__(self) -> str:
        return "the untrained base" if self.made is None else f"trial {self.pair[0]}"


def rejudge_checkpoints(bench: Bench, seeds: Sequence[int]) -> None:
    """Judges what the leaders made in the search with each seed, and the untrained base, unless that is known."""
    trials = bench.spec.folder / "trials"
    base = [_Job("untrained", (BASE, seed), None) for seed in seeds]
    _rejudge(bench, [*(_Job("checkpoint", pair, trials / str(pair[0])) for pair in _pairs(bench, seeds)), *base])


def rejudge_retrained(bench: Bench, seeds: Sequence[int]) -> None:
    """Judges what `retrain` made, each training with the seed it was trained with."""
    trained = {pair: bench.ledger.get("trained", pair) for pair in _pairs(bench, seeds)}
    for pair, found in trained.items():
        if found is not None and found.failed:
            bench.ledger.note("retrained", pair, found)
    done = [(pair, found) for pair, found in trained.items() if found is not None and not found.failed]
    _rejudge(bench, [_Job("retrained", pair, bench.spec.folder / found.made) for pair, found in done])


def _rejudge(bench: Bench, jobs: Sequence[_Job]) -> None:
    jobs = [job for job in jobs if bench.ledger.get(job.kind, job.pair) is None]
    if not jobs:
        return
    bench.view.note(f"judging again: {len(jobs)} times {bench.ready.trainer.__class__.__name__} with new seeds")
    work = [_arguments(bench, job) for job in jobs]
    answers = pool.answers(rejudged, work, trial=bench.placed.trial, at_most=bench.placed.limit())
    metric = bench.spec.objective.metric
    for done, answer in enumerate(answers, start=1):
        job = jobs[answer.place]
        if answer.lost:
            raise StudyError(f"{job} could not be judged again: {answer.lost}; the same command goes on")
        found = _measured(answer.value, metric, job)
        # What cannot be read may be there the next time.
        bench.ledger.note(job.kind, job.pair, found, kept="unusable" not in answer.value)
        said = f"{metric} {found.value:.4g}" if found.value is not None else found.failed
        bench.view.note(f"[{done}/{len(jobs)}] {job}, seed {job.pair[1]}: {said}")


def _arguments(bench: Bench, job: _Job) -> tuple[Any, ...]:
    number, seed = job.pair
    made = None if job.made is None else job.made.absolute()
    # The base is judged as it was before the search: with what every trial has in common, such as the precision.
    config = bench.ready.space.resolve({}) if made is None else dict(bench.of(number).config)
    pictures = bench.folder / _IMAGES[job.kind] / ("" if made is None else str(number))
    return (bench.ready.trainer, made, config, pictures.absolute(), seed, bench.placed.threads)


def _measured(answer: Mapping[str, Any], metric: str, job: _Job) -> Measured:
    metrics = answer.get("metrics", {})
    if failed := answer.get("failed") or answer.get("unusable"):
        return Measured(failed=failed, metrics=metrics)
    if metric not in metrics:
        return Measured(failed=f"{metric} could not be measured with seed {job.pair[1]}", metrics=metrics)
    return Measured(value=float(metrics[metric]), metrics=metrics)


_SHARED: dict[str, Any] = {}
"""What outlives a judgement in this worker process: the base model."""


def rejudged(
    trainer: Rejudging, made: Path | None, params: dict[str, Any], pictures: Path, seed: int, threads: int
) -> dict[str, Any]:
    """Runs on a worker: what `trainer` measures of the trial folder `made`, or of the untrained base, or why it does
    not."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    pictures.mkdir(parents=True, exist_ok=True)
    context = TrialContext(params, pictures, seed=seed, threads=threads, shared=_SHARED)
    try:
        return {"metrics": trainer.rejudge(made, context)}
    except TrialFailure as failure:
        return {"failed": f"{failure.cause.value}: {failure.message}", "metrics": failure.metrics}
    except TuneLoraError as error:
        return {"unusable": str(error)}


# --- trained again ---------------------------------------------------------------------------------------------------


def retrain(bench: Bench, seeds: Sequence[int]) -> None:
    """Trains every leader again with each seed, unless that is known; batches that were begun go on first.

    Where the study cross-validates, each seed deals the rows into folds of its own, the same for all candidates.

    Raises:
        KeyboardInterrupt: somebody pressed ctrl-C; what was trained is kept.
        StudyError: trainings crash one after another.
    """
    wanted = set(_pairs(bench, seeds))
    for batch in list(bench.ledger.batches):
        if set(batch.pairs) <= wanted and _missing(bench, batch.pairs):
            _train(bench, batch)
    for group in _groups(bench, seeds):
        if pairs := _missing(bench, group):
            _train(bench, bench.ledger.begin(f"{bench.spec.name}-again", pairs))


def use_trained(bench: Bench, seeds: Sequence[int]) -> None:
    """Takes the value at the end of each training as it is: what the study's own measure says of it."""
    for pair in _pairs(bench, seeds):
        if (found := bench.ledger.get("trained", pair)) is not None:
            bench.ledger.note("retrained", pair, found)


def _groups(bench: Bench, seeds: Sequence[int]) -> list[list[Pair]]:
    """What can be one study: all pairs, or those of a seed where a seed has folds of its own."""
    by_seed = [[(trial.number, seed) for trial in bench.leaders] for seed in seeds]
    return by_seed if trainers.is_cross_validated(bench.spec) else [[pair for group in by_seed for pair in group]]


def _missing(bench: Bench, pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if bench.ledger.get("trained", pair) is None]


def _train(bench: Bench, batch: Batch) -> None:
    bench.view.note(f"training again: {len(batch.pairs)} times, study {batch.name} in {bench.folder}")
    again = _study_of(bench, batch)
    record = study.run(again, view=bench.view)
    _harvest(bench, batch, record, again.folder)
    if record.stop_reason.startswith(store.INTERRUPTED):
        raise KeyboardInterrupt
    if lost := _missing(bench, batch.pairs):
        raise StudyError(f"trial {lost[0][0]} could not be trained again with seed {lost[0][1]}; see {again.folder}")


def _study_of(bench: Bench, batch: Batch) -> StudySpec:
    spec, rows = bench.spec, tuple(_row(bench, pair) for pair in batch.pairs)
    search = {"start_with": rows, "priors": False, "sampler": "random", "observations": None, "warm_start": ()}
    budget = {"n_trials": len(rows), "plateau": None, "target": None, "timeout_hours": None}
    changed: dict[str, Any] = {
        "name": batch.name,
        "results": str(bench.folder),
        "search": spec.search.model_copy(update=search),
        "budget": spec.budget.model_copy(update=budget),
        "scheduler": SchedulerSpec(name="none"),
    }
    if trainers.is_cross_validated(spec):
        changed["cross_validation"] = spec.cross_validation.model_copy(update={"seed": batch.pairs[0][1]})
    return spec.model_copy(update=changed)


def _row(bench: Bench, pair: Pair) -> dict[str, Any]:
    number, seed = pair
    return {"name": _name(pair), **configuration(bench.of(number), bench.ready.space), "seed": seed}


def configuration(trial: TrialRecord, space: Space) -> dict[str, Any]:
    """What a trial set of a space: its parameters, and whatever else it had that does not follow from them."""
    given = {name: trial.config[name] for name in space.parameters if name in trial.config}
    follows = space.resolve(given)
    known = {*space.fixed, *space.derived, *space.external}
    more = {name: value for name, value in trial.config.items() if name in known and follows.get(name) != value}
    return {**given, **more}


def _name(pair: Pair) -> str:
    return f"{pair[0]} again {pair[1]}"


def _harvest(bench: Bench, batch: Batch, record: StudyRecord, folder: Path) -> None:
    """Keeps what has come of a batch's trainings."""
    pairs = {f"{PRIOR}{_name(pair)}": pair for pair in batch.pairs}
    for trial in record.trials:
        pair = pairs.get(record.origin(trial))
        if pair is None or not trial.counts:
            continue
        made = os.path.relpath(folder / "trials" / str(trial.number), bench.spec.folder)
        if trial.value is not None:
            bench.ledger.note("trained", pair, Measured(trial.value, made=made, metrics=dict(trial.metrics)))
        else:
            why = trial.cause.value if trial.cause else trial.state
            bench.ledger.note("trained", pair, Measured(failed=f"{why}: {trial.message}", made=made))


def _pairs(bench: Bench, seeds: Sequence[int]) -> Iterator[Pair]:
    """Every leader with every seed; seed by seed, so that what is cut short compares all with the same seeds."""
    return ((trial.number, seed) for seed in seeds for trial in bench.leaders)
