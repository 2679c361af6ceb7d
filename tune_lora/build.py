"""From a StudySpec to the objects it describes: space, trainer, dataset. Everything a person can get wrong is found
here, before anything starts. Loads neither ray nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search_spaces.space import Space
from trainables import llm_lora
from trainables.protocol import Trainer
from trainables.rules import is_known
from trainables.rules import mistakes as mistakes_in
from tune_lora import packing_check, phases_check
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.knowledge import Knowledge, gather
from tune_lora.records import CLOCK
from tune_lora.spec import StudySpec
from tune_lora.trainers import kind_of, trainer_of

MANY = ("auto", "tpe", "nsgaii", "gp", "random", "grid", "qmc")
"""Samplers that can search for several objectives."""


@dataclass(frozen=True)
class Plan:
    """What a study is made of."""

    spec: StudySpec
    space: Space
    trainer: Trainer
    knowledge: Knowledge = field(default_factory=Knowledge)


def plan(spec: StudySpec) -> Plan:
    """Builds and checks all parts of a study.

    Raises:
        InputErrors: every mistake in the space, the base, the dataset, what is carried over, and how they fit together.
    """
    mistakes: list[str] = []
    space = _collect(mistakes, lambda: space_of(spec))
    trainer = trainer_of(spec)
    for check in kind_of(spec).checks(spec, trainer):
        _collect(mistakes, check)
    mistakes.extend(_unmeasured(spec))
    mistakes.extend(_wrong_folds(spec))
    if spec.objective.several:
        mistakes.extend(_for_one_objective_only(spec))
    for name in ("clip", "lpips"):
        path = getattr(spec.evaluation, name)
        if path and not Path(path).exists():
            mistakes.append(f"evaluation.{name}: {path!r} does not exist; must be a file of weights, or left out")
    if space is not None:
        mistakes.extend(f"space: {mistake}" for mistake in unfit(space, trainer) if mistake not in mistakes)
        mistakes.extend(unknown(spec))
        mistakes.extend(_another_task(spec, space))
        mistakes.extend(packing_check.mistakes(spec, space, trainer))
        if spec.phases:
            _collect(mistakes, lambda: phases_check.check(spec, space))
        knowledge = _collect(mistakes, lambda: gather(spec, space))
    if mistakes:
        raise InputErrors(mistakes)
    assert space is not None  # no mistake was found, so it is there
    if spec.objective.several:  # what the space holds of past results is one score each
        knowledge = replace(knowledge, sources=tuple(source for source in knowledge.sources if not source.told))
    return Plan(spec, space, trainer, knowledge)


def _unmeasured(spec: StudySpec) -> Iterable[str]:
    objective, known = spec.objective, kind_of(spec).metrics(spec)
    if known is None:
        return
    if not objective.several and objective.metric not in known:
        yield f"objective.metric: got {objective.metric!r}; {nearest(objective.metric, known)}"
    for index, one in enumerate(objective.several):
        if one.name not in (*known, *CLOCK):
            yield f"objective.metrics.{index}: got {one.name!r}; {nearest(one.name, (*known, *CLOCK))}"


def _wrong_folds(spec: StudySpec) -> Iterable[str]:
    asked, folds = spec.cross_validation.enabled, kind_of(spec).folds
    if asked and folds == "never":
        yield f"cross_validation.enabled: got true, but the trainer {spec.trainer} judges in no folds; must be left out"
    if asked is False and folds == "always":
        yield f"cross_validation.enabled: got false, but the trainer {spec.trainer} always does; must be left out"


def _for_one_objective_only(spec: StudySpec) -> Iterable[str]:
    """Settings that mean nothing where a study has several objectives."""
    count = f"but the study has {len(spec.objective.several)} objectives"
    if spec.search.sampler not in MANY:
        yield f"search.sampler: got {spec.search.sampler}, {count}; must be one of {', '.join(MANY)}"
    if spec.budget.target is not None:
        yield f"budget.target: got {spec.budget.target:g}, {count}; must be left out (plateau, time and trials stop it)"
    if spec.search.observations is not None:
        yield f"search.observations: hold one value a trial, {count}; must be left out (start_with trains them again)"
    for index, earlier in enumerate(spec.search.warm_start):
        if earlier.use != "priors":
            yield f"search.warm_start.{index}.use: got {earlier.use}, {count}; must be priors, which trains them again"


def space_of(spec: StudySpec) -> Space:
    """The search space, with the study's preset and fixed values in it."""
    space = _as_written(spec)
    # What rules may ask for and the study decides: how numbers are held, and that every step is looked at.
    decided = {"precision": spec.precision, "nan_check_every_steps": 1}
    values = {name: value for name, value in decided.items() if name in space.external} | spec.fixed
    return space.with_fixed(values, instead_of=_said_otherwise(spec))


def common(spec: StudySpec) -> dict[str, Any]:
    """What every trial of a study has in common: ``precision`` always, of text ``quantization``, and what is fixed.

    Raises:
        InputErrors: precision or quantization is none, or the space cannot be read.
    """
    said = {"precision": spec.precision} | ({"quantization": spec.text.quantization} if spec.text is not None else {})
    found = said | space_of(spec).resolve({})
    if wrong := mistakes_in({name: found[name] for name in said}, llm_lora.RULES):
        raise InputErrors(f"fixed: {mistake}" for mistake in wrong)
    return found


def _said_otherwise(spec: StudySpec) -> set[str]:
    """Fixed values of the space that the study's own take the place of: ``max_steps`` that of ``epochs``, say."""
    pairs = kind_of(spec).said_twice
    both_ways = [*pairs, *((other, one) for one, other in pairs)]
    return {one for one, other in both_ways if other in spec.fixed and one not in spec.fixed}


def unfit(space: Space, trainer: Trainer) -> Iterable[str]:
    """What the trainer says of the space's configurations: each choice of each parameter once."""
    seen: dict[str, None] = {}
    for params in space.examples():
        seen.update(dict.fromkeys(trainer.check(params)))
    return seen


def _another_task(spec: StudySpec, space: Space) -> Iterable[str]:
    for name in kind_of(spec).same_for_all:
        if name in space.parameters or name in space.derived:
            place = "parameters" if name in space.parameters else "derived"
            yield f"space: {place}.{name}: is another task for each value, so no trials compare; must be fixed"


def unknown(spec: StudySpec) -> Iterable[str]:
    """Names of the space and of the study's fixed values that nobody reads: most likely misspelt."""
    space = _as_written(spec)
    told = {*kind_of(spec).told} - {*space.parameters, *space.fixed, *spec.fixed}
    places = ("parameters", "fixed", "derived")
    named = {f"space: {place}.{name}": name for place in places for name in getattr(space, place)}
    # What is pinned has been named already; what reads it may be gone with the parameters that are pinned beside it.
    named |= {f"fixed.{name}": name for name in spec.fixed if name not in {*space.parameters, *space.fixed}}
    return _unknown(spec, _read_by(space) | told, named)


def unknown_in(spec: StudySpec, params: Iterable[str]) -> Iterable[str]:
    """Names of a configuration that neither the study's trainer nor its space knows: most likely misspelt."""
    space = _as_written(spec)
    own = {*space.parameters, *space.fixed, *space.derived, *spec.fixed, *kind_of(spec).told}
    return _unknown(spec, _read_by(space) | own, {name: name for name in params})


def _unknown(spec: StudySpec, used: set[str], named: Mapping[str, str]) -> Iterable[str]:
    """A line for each name, by its place, that the trainer has no rule for and nobody else has a use for."""
    rules = kind_of(spec).rules
    if rules is None:
        return
    known = used | {name for name in rules if not name.endswith("*")}
    for place, name in named.items():
        if name not in known and not is_known(name, rules):
            hint = nearest(name, known)
            yield f"{place}: unknown setting; {hint.partition(' (available')[0] if 'did you mean' in hint else hint}"


def _read_by(space: Space) -> set[str]:
    """What the expressions of a space read, and what it says that somebody else sets."""
    conditions = (one.when.names for one in space.parameters.values() if one.when is not None)
    derived = (one.names for one in space.derived.values())
    return set(space.external).union(*conditions, *derived, *(one.names for one in space.constraints))


def _as_written(spec: StudySpec) -> Space:
    """The space before the study fixes anything."""
    space = Space.load(spec.space, where="space")
    return space if spec.preset is None else space.preset(spec.preset)


def _collect(mistakes: list[str], make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputErrors as errors:
        mistakes.extend(errors.mistakes)
    except InputError as error:
        mistakes.append(str(error))
    return None
