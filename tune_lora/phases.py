"""A study of phases: each searches a few parameters from the best of the phase before, and what it gained is measured.

The best of a search is a lucky value. So a phase's start, its best, and every single change between the two are trained
again with a few seeds that the search has not seen; the next phase starts from what did best there. The end is measured
with yet other seeds, since the first ones have had a say in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from search_spaces.space import Space
from tune_lora import build, gains, locks, phases_report, store, study
from tune_lora.errors import InputError, StudyError
from tune_lora.gains import Gain, PhaseGain, PhasesRecord
from tune_lora.phases_check import start_of
from tune_lora.phases_spec import PhaseSpec
from tune_lora.scheduler_spec import SchedulerSpec
from tune_lora.spec import StudySpec
from tune_lora.store import StudyRecord
from tune_lora.study import NoView, View

SEEDS_FROM = 1_000_000
"""The seeds that gains are measured with begin so far from the search's own."""
Config = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """A configuration to train with every seed of the ablation."""

    label: str
    config: Mapping[str, Any]


def run(spec: StudySpec, *, view: View | None = None) -> PhasesRecord:
    """Runs (or continues) every phase and leaves tables, a picture and a report in the study's folder.

    Each phase is a study of its own in that folder, ``<name>-1-<phase>``, with its ablation beside it.

    Raises:
        InputErrors: something in the study is not as it must be; nothing has been started.
        StudyError: a phase had no trial that completed.
    """
    part = _Parts(spec, build.plan(spec).space, view or NoView())
    spec.folder.mkdir(parents=True, exist_ok=True)
    with locks.held(spec.folder / "lock", f"study {spec.name!r}"):
        record = _blank(part)
        if not (spec.folder / "report.html").exists():
            phases_report.write(record, spec)
        try:
            for index, phase in enumerate(spec.phases, start=1):
                part.view.note(f"phase {index} of {len(spec.phases)}, {phase.name}: {', '.join(phase.parameters)}")
                done = _run_phase(part, phase, index, dict(record.end))
                record = replace(record, phases=(*record.phases, done))
                phases_report.write(record, spec)
                part.view.note(phases_report.line(done, record))
            record = _with_end(record, part)
        except _Cut as cut:
            record = replace(record, stop_reason=str(cut))
        phases_report.write(record, spec)
    return record


def refuse_totals(n_trials: str | None) -> None:
    """A study of phases has no total of its own.

    Raises:
        InputError: one was asked for.
    """
    if n_trials is not None:
        raise InputError(
            f"--n-trials: got {n_trials}, but each phase has its own n_trials; change those in the study file"
        )


# --- one phase -------------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """A part ended before it was done: time is over, or somebody pressed ctrl-C. The same command goes on."""


@dataclass(frozen=True)
class _Parts:
    """Runs the studies that a study of phases is made of, in its folder and within its time."""

    spec: StudySpec
    space: Space
    view: View
    started: float = field(default_factory=time.monotonic)

    def run(self, name: str, *, pinned: Mapping[str, Any], **changes: Mapping[str, Any]) -> StudyRecord:
        """One part. `changes` are settings by section.

        Raises:
            _Cut: it ended before it was done.
        """
        spec = self.spec
        sections = {section: getattr(spec, section).model_copy(update=dict(new)) for section, new in changes.items()}
        if (hours := spec.budget.timeout_hours) is not None:
            left = hours - (time.monotonic() - self.started) / 3600
            if left <= 0:
                raise _Cut(f"timeout: {hours:g} h are over")
            sections["budget"] = sections["budget"].model_copy(update={"timeout_hours": left})
        asked = {"name": name, "results": str(spec.folder), "phases": (), "fixed": {**spec.fixed, **pinned}}
        record = study.run(spec.model_copy(update=asked | sections), view=self.view)
        if record.stop_reason.startswith((store.INTERRUPTED, "timeout")):
            raise _Cut(record.stop_reason)
        return record


def _run_phase(part: _Parts, phase: PhaseSpec, index: int, start: Config) -> PhaseGain:
    name, space = f"{part.spec.name}-{index}-{phase.name}", part.space
    rows = ({"name": "start", **start},)
    search = {"start_with": rows, "priors": False}
    found = part.run(name, pinned=_pinned(start, phase), search=search, budget={"n_trials": phase.n_trials})
    if found.best is None:
        raise StudyError(f"phase {phase.name!r}: no trial completed; see {part.spec.folder / name / 'report.html'}")
    best = _parameters_in(found.best.config, space)
    wanted = list(_measurements(start, best, phase, space))
    values = _measure(part, f"{name}-ablation", wanted, seeds_of(part.spec, index))
    return _gain(phase, start, best, found, values, part)


def _pinned(start: Mapping[str, Any], phase: PhaseSpec) -> Config:
    return {name: value for name, value in start.items() if name not in phase.parameters}


def _parameters_in(config: Mapping[str, Any], space: Space) -> Config:
    """The searched part of a configuration, without parameters whose condition no longer holds."""
    given = {name: config[name] for name in space.parameters if name in config}
    return {name: value for name, value in given.items() if space.exists(name, space.resolve(given))}


def _measurements(
    start: Mapping[str, Any], best: Mapping[str, Any], phase: PhaseSpec, space: Space
) -> Iterator[Measurement]:
    """What is trained again: start, best, every single change between them, and every claim. Each once."""
    changes = _changes(start, best, space) + [claim.change for claim in phase.claims]
    seen: list[Mapping[str, Any]] = []
    for label, config in (("start", start), ("best", best), *((_label(c), _changed(start, c, space)) for c in changes)):
        if config not in seen:
            seen.append(config)
            yield Measurement(label, config)


def _changes(start: Mapping[str, Any], best: Mapping[str, Any], space: Space) -> list[Config]:
    owners = {
        name: next(iter(sorted(space.needs(parameter.when.names))))
        for name, parameter in space.parameters.items()
        if parameter.when is not None and space.needs(parameter.when.names)
    }
    return gains.differing(start, best, owners)


def _changed(start: Mapping[str, Any], change: Mapping[str, Any], space: Space) -> Config:
    return _parameters_in(space.complete(_parameters_in({**start, **change}, space)), space)


def _label(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in change.items())


def _gain(
    phase: PhaseSpec,
    start: Config,
    best: Config,
    found: StudyRecord,
    values: Sequence[tuple[Mapping[str, Any], Mapping[int, float]]],
    part: _Parts,
) -> PhaseGain:
    space, direction, confidence = part.space, part.spec.objective.direction, part.spec.ablation.confidence

    def of(config: Mapping[str, Any]) -> Mapping[int, float]:
        return next((measured for trained, measured in values if trained == config), {})

    def single(change: Mapping[str, Any], claimed: tuple[float, float] | None) -> Gain:
        config = _changed(start, change, space)
        measured = gains.paired(of(start), of(config), direction, confidence)
        return Gain(change, {name: start.get(name) for name in change}, measured, claimed)

    claims = {_label(claim.change): (claim.low, claim.high) for claim in phase.claims}
    changes = {_label(change): change for change in (*_changes(start, best, space), *(c.change for c in phase.claims))}
    return PhaseGain(
        name=phase.name,
        start=start,
        best=best,
        searched=found.best.value if found.best else None,
        start_values=of(start),
        best_values=of(best),
        end=(end := gains.strongest(values, direction)),
        end_values=of(end),
        gained=gains.paired(of(start), of(end), direction, confidence) if end != start else None,
        whole=gains.paired(of(start), of(best), direction, confidence) if best != start else None,
        singles=tuple(single(change, claims.get(label)) for label, change in changes.items()),
        n_trials=len(found.trials),
        changed=tuple(_changes(start, best, space)),
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def seeds_of(spec: StudySpec, part: int) -> tuple[int, ...]:
    """The seeds that gains are measured with in a part of the study: phases from 1, and after them the end.

    No two parts share any: seeds that have chosen where a phase starts would flatter its start.
    """
    first = SEEDS_FROM * part + spec.search.seed
    return tuple(range(first, first + spec.ablation.seeds))


def _measure(
    part: _Parts, name: str, wanted: Sequence[Measurement], seeds: Sequence[int]
) -> list[tuple[Mapping[str, Any], dict[int, float]]]:
    """Trains each configuration with each seed, to its end; returns the objective by configuration and seed."""
    rows = tuple({"name": f"{one.label} / {seed}", **one.config, "seed": seed} for seed in seeds for one in wanted)
    part.view.note(f"measuring {len(wanted)} configurations with {len(seeds)} seeds each")
    measured = part.run(
        name,
        pinned={},
        search={"start_with": rows, "priors": False, "sampler": "random"},
        scheduler=SchedulerSpec(name="none").model_dump(),
        budget={"n_trials": len(rows), "plateau": None, "target": None},
    )

    def values_of(config: Mapping[str, Any]) -> dict[int, float]:
        return {
            trial.seed: trial.value
            for trial in measured.trials
            if trial.value is not None and _parameters_in(trial.config, part.space) == config
        }

    return [(one.config, values_of(one.config)) for one in wanted]


def _with_end(record: PhasesRecord, part: _Parts) -> PhasesRecord:
    """The end measured beside the very start and beside the space's own references."""
    space, spec = part.space, part.spec
    wanted = [Measurement("start", record.start), Measurement("end", record.end)]
    priors = {prior.name: _parameters_in(space.complete(prior.params), space) for prior in space.priors if prior.run}
    wanted += [Measurement(name, config) for name, config in priors.items()]
    distinct = [one for at, one in enumerate(wanted) if one.config not in [other.config for other in wanted[:at]]]
    values = _measure(part, f"{spec.name}-end", distinct, seeds_of(spec, len(spec.phases) + 1))
    by_label = {one.label: next(found for config, found in values if config == one.config) for one in wanted}
    whole = gains.paired(by_label["start"], by_label["end"], spec.objective.direction, spec.ablation.confidence)
    return replace(record, values=by_label, whole=whole, stop_reason="all phases are done")


def _blank(part: _Parts) -> PhasesRecord:
    spec, start = part.spec, start_of(part.space)
    metric, direction = spec.objective.metric, spec.objective.direction
    return PhasesRecord(spec.name, metric, direction, start, (), spec.ablation.seeds, spec.ablation.confidence, {})
