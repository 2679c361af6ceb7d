"""A study of phases: each searches a few parameters from the best of the phase before, and what it gained is measured.

The best of a search is a lucky value. So a phase's start, its best, and every single change between the two are trained
again with a few seeds that the search has not seen; the next phase starts from the best only if it won there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.space import Space
from tune_lora import build, gains, locks, phases_report, study
from tune_lora.errors import InputError, InputErrors, StudyError, nearest
from tune_lora.gains import Gain, PhaseGain, PhasesRecord
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
    view = view or NoView()
    space = build.plan(spec).space
    check(spec, space)
    spec.folder.mkdir(parents=True, exist_ok=True)
    with locks.held(spec.folder / "lock", f"study {spec.name!r}"):
        record = _blank(spec, space)
        phases_report.write(record, spec)
        for index, phase in enumerate(spec.phases, start=1):
            view.note(f"phase {index} of {len(spec.phases)}, {phase.name}: {', '.join(phase.parameters)}")
            done = _run_phase(spec, phase, index, dict(record.end), space, view)
            record = _with_phase(record, done)
            phases_report.write(record, spec)
            view.note(phases_report.line(done, record))
        record = _measured_end(record, spec, space, view)
        phases_report.write(record, spec)
    return record


def check(spec: StudySpec, space: Space) -> None:
    """Whether the phases fit the space.

    Raises:
        InputErrors: they name parameters that it does not have, or it lacks a default to start from.
    """
    mistakes, config = [], start_of(space)
    for number, phase in enumerate(spec.phases):
        for name in phase.parameters:
            if name not in space.parameters:
                hint = nearest(name, space.parameters)
                mistakes.append(f"phases.{number}.parameters: unknown parameter {name!r}; {hint}")
        for claim in phase.claims:
            mistakes += [
                f"phases.{number}.claims: {name!r} is not searched in this phase; {nearest(name, phase.parameters)}"
                for name in claim.change
                if name not in phase.parameters
            ]
    names = [phase.name for phase in spec.phases]
    mistakes += [
        f"phases: {name!r} is given twice; must be different names" for name in set(names) if names.count(name) > 1
    ]
    unset = (name for name in space.parameters if space.exists(name, space.resolve(config)) and name not in config)
    mistakes += [f"space: {name} has no default; must have one, since the first phase starts from it" for name in unset]
    if spec.objective.several:
        mistakes.append("objective.metrics: a study of phases compares one value; must be one metric and its direction")
    if mistakes:
        raise InputErrors(mistakes)


def refuse_totals(n_trials: str | None) -> None:
    """A study of phases has no total of its own.

    Raises:
        InputError: one was asked for.
    """
    if n_trials is not None:
        raise InputError(
            f"--n-trials: got {n_trials}, but each phase has its own n_trials; change those in the study file"
        )


def start_of(space: Space) -> Config:
    """Where the first phase starts: the space's defaults, and what is fixed in place of a parameter."""
    return dict(space.complete({}))


# --- one phase -------------------------------------------------------------------------------------------------------


def _run_phase(spec: StudySpec, phase: PhaseSpec, index: int, start: Config, space: Space, view: View) -> PhaseGain:
    name = f"{spec.name}-{index}-{phase.name}"
    searching = _part(spec, name, pinned=_pinned(start, phase))
    rows = [{"name": "start", **start}]
    search = searching.search.model_copy(update={"start_with": tuple(rows), "priors": False})
    budget = searching.budget.model_copy(update={"n_trials": phase.n_trials})
    found = study.run(searching.model_copy(update={"search": search, "budget": budget}), view=view)
    if found.best is None:
        raise StudyError(f"phase {phase.name!r}: no trial completed; see {searching.folder / 'report.html'}")
    best = _parameters_in(found.best.config, space)
    wanted = list(_measurements(start, best, phase, space))
    values = _measure(spec, f"{name}-ablation", wanted, space, view)
    return _gain(phase, start, best, found, values, spec, space)


def _pinned(start: Mapping[str, Any], phase: PhaseSpec) -> Config:
    return {name: value for name, value in start.items() if name not in phase.parameters}


def _part(spec: StudySpec, name: str, pinned: Mapping[str, Any]) -> StudySpec:
    """A study within the study, in its folder."""
    return spec.model_copy(
        update={"name": name, "results": str(spec.folder), "phases": (), "fixed": {**spec.fixed, **pinned}}
    )


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
    spec: StudySpec,
    space: Space,
) -> PhaseGain:
    direction, confidence = spec.objective.direction, spec.ablation.confidence

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
        whole=gains.paired(of(start), of(best), direction, confidence) if best != start else None,
        singles=tuple(single(change, claims.get(label)) for label, change in changes.items()),
        n_trials=len(found.trials),
        changed=tuple(_changes(start, best, space)),
    )


# --- measuring -------------------------------------------------------------------------------------------------------


def seeds_of(spec: StudySpec) -> tuple[int, ...]:
    """The seeds that gains are measured with."""
    return tuple(SEEDS_FROM + spec.search.seed + number for number in range(spec.ablation.seeds))


def _measure(
    spec: StudySpec, name: str, wanted: Sequence[Measurement], space: Space, view: View
) -> list[tuple[Mapping[str, Any], dict[int, float]]]:
    """Trains each configuration with each seed, to its end; returns the objective by configuration and seed."""
    seeds = seeds_of(spec)
    rows = tuple({"name": f"{one.label} / {seed}", **one.config, "seed": seed} for seed in seeds for one in wanted)
    view.note(f"measuring {len(wanted)} configurations with {len(seeds)} seeds each: start, best, single changes")
    plain = _part(spec, name, pinned={})
    asked = plain.model_copy(
        update={
            "search": plain.search.model_copy(update={"start_with": rows, "priors": False, "sampler": "random"}),
            "scheduler": SchedulerSpec(name="none"),
            "budget": plain.budget.model_copy(update={"n_trials": len(rows), "plateau": None, "target": None}),
        }
    )
    measured = study.run(asked, view=view)
    done = [trial for trial in measured.trials if trial.state == "complete" and trial.value is not None]
    return [
        (
            one.config,
            {t.seed: t.value for t in done if t.value is not None and _parameters_in(t.config, space) == one.config},
        )
        for one in wanted
    ]


def _measured_end(record: PhasesRecord, spec: StudySpec, space: Space, view: View) -> PhasesRecord:
    """The end beside the very start and beside the space's own references."""
    wanted = [Measurement("start", record.start), Measurement("end", record.end)]
    priors = {prior.name: _parameters_in(space.complete(prior.params), space) for prior in space.priors if prior.run}
    wanted += [Measurement(name, config) for name, config in priors.items()]
    distinct = [
        one for number, one in enumerate(wanted) if one.config not in [other.config for other in wanted[:number]]
    ]
    values = _measure(spec, f"{spec.name}-end", distinct, space, view)
    by_label = {one.label: next(found for config, found in values if config == one.config) for one in wanted}
    whole = gains.paired(by_label["start"], by_label["end"], spec.objective.direction, spec.ablation.confidence)
    return replace(record, values=by_label, whole=whole)


def _blank(spec: StudySpec, space: Space) -> PhasesRecord:
    objective, start = spec.objective, start_of(space)
    return PhasesRecord(
        spec.name, objective.metric, objective.direction, start, (), seeds_of(spec), spec.ablation.confidence, {}
    )


def _with_phase(record: PhasesRecord, done: PhaseGain) -> PhasesRecord:
    return replace(record, phases=(*record.phases, done))
