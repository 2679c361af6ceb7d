"""From a StudySpec to the objects it describes: space, trainer, dataset. Everything a person can get wrong is found
here, before anything starts. Loads neither ray nor torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search_spaces.space import Space
from trainables import curve, demo_character, demo_logbook, diffusion_lora, llm_lora
from trainables.curve import Curve
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.llm_lora import LlmLora
from trainables.lora.paths import cache_folder, resolve_base
from trainables.lora.rules import Rule, is_known
from trainables.lora.rules import mistakes as mistakes_in
from trainables.lora.settings import IMAGE_RULES
from trainables.lora.text import sources as text_sources
from trainables.protocol import Trainer
from tune_lora.dataset_spec import DEMO_CHARACTER, DatasetSpec
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.knowledge import Knowledge, gather
from tune_lora.records import CLOCK
from tune_lora.spec import StudySpec
from tune_lora.text_spec import DEMO_LOGBOOK, TextSpec

METRICS = {"diffusion_lora": diffusion_lora.METRICS, "llm_lora": llm_lora.METRICS, "curve": curve.METRICS}
"""What each trainer measures; a study is about one of them, or several."""
RULES: Mapping[str, Mapping[str, Rule]] = {"diffusion_lora": IMAGE_RULES, "llm_lora": llm_lora.RULES}
"""What a configuration may hold, by trainer."""
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
    if isinstance(trainer, DiffusionLora):
        _collect(mistakes, lambda: resolve_base(spec.base))
        _collect(mistakes, trainer.load_dataset)
    if isinstance(trainer, LlmLora):
        _collect(mistakes, lambda: text_sources.resolve(spec.base))
        _collect(mistakes, trainer.check_data)
    mistakes.extend(_unmeasured(spec))
    if spec.objective.several:
        mistakes.extend(_for_one_objective_only(spec))
    for name in ("clip", "lpips"):
        path = getattr(spec.evaluation, name)
        if path and not Path(path).exists():
            mistakes.append(f"evaluation.{name}: {path!r} does not exist; must be a file of weights, or left out")
    if space is not None:
        mistakes.extend(f"space: {mistake}" for mistake in _unfit(space, trainer))
        mistakes.extend(_unknown_fixed(spec, space))
        knowledge = _collect(mistakes, lambda: gather(spec, space))
    if mistakes:
        raise InputErrors(mistakes)
    assert space is not None  # no mistake was found, so it is there
    if spec.objective.several:  # what the space holds of past results is one score each
        knowledge = replace(knowledge, sources=tuple(source for source in knowledge.sources if not source.told))
    return Plan(spec, space, trainer, knowledge)


def _unmeasured(spec: StudySpec) -> Iterable[str]:
    objective, known = spec.objective, METRICS[spec.trainer]
    if not objective.several and objective.metric not in known:
        yield f"objective.metric: got {objective.metric!r}; {nearest(objective.metric, known)}"
    for index, one in enumerate(objective.several):
        if one.name not in (*known, *CLOCK):
            yield f"objective.metrics.{index}: got {one.name!r}; {nearest(one.name, (*known, *CLOCK))}"


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
    space = Space.load(spec.space, where="space")
    if spec.preset is not None:
        space = space.preset(spec.preset)
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
    pairs = llm_lora.SAID_TWICE if spec.trainer == "llm_lora" else ()
    both_ways = [*pairs, *((other, one) for one, other in pairs)]
    return {one for one, other in both_ways if other in spec.fixed and one not in spec.fixed}


def trainer_of(spec: StudySpec) -> Trainer:
    """The trainer that the study's trials run."""
    if spec.trainer == "curve":
        chosen = spec.curve
        failing = (chosen.nan_above or math.inf, chosen.crash_above or math.inf)
        return Curve(chosen.best_rate, chosen.noise, *failing, chosen.seconds)
    return text_trainer(spec) if spec.trainer == "llm_lora" else image_trainer(spec)


def text_trainer(spec: StudySpec, *, merged: bool = False) -> LlmLora:
    """The text LoRA trainer of a study; `merged`: it exports the whole model, too.

    Raises:
        InputError: the study has no text.
    """
    if spec.text is None:
        raise InputError(f"study {spec.name!r} has no text; must have some to train a language model")
    return LlmLora(
        base=spec.base,
        data=str(text_path(spec.text)),
        settings=spec.text.settings(),
        precision=spec.precision,
        quantization=spec.text.quantization,
        report_every=spec.text.report_every,
        samples=spec.text.samples,
        merged=merged,
        trial_timeout_seconds=_seconds(spec),
    )


def image_trainer(spec: StudySpec) -> DiffusionLora:
    """The image LoRA trainer of a study.

    Raises:
        InputError: the study has no dataset.
    """
    if spec.dataset is None:
        raise InputError(f"study {spec.name!r} has no dataset; must have one to train images")
    objective, evaluation = spec.objective, spec.evaluation
    return DiffusionLora(
        base=spec.base,
        prediction_type=spec.prediction_type,
        dataset=str(dataset_path(spec.dataset)),
        dataset_settings=spec.dataset.settings(),
        held_out_share=spec.dataset.held_out_share,
        evaluation=ImageEvaluation(
            prompts=evaluation.prompts,
            n_images=evaluation.n_images,
            seed=evaluation.seed,
            steps=evaluation.steps,
            guidance=evaluation.guidance,
            targets=objective.targets,
            weights=objective.weights,
            clip=evaluation.clip,
            lpips=evaluation.lpips,
        ),
        precision=spec.precision,
        trial_timeout_seconds=_seconds(spec),
    )


def _seconds(spec: StudySpec) -> float | None:
    """The limit of one trial."""
    hours = spec.budget.trial_timeout_hours
    return None if hours is None else hours * 3600


def text_path(text: TextSpec) -> Path:
    """The examples on disk, absolute; the demo's are written into the cache first."""
    if text.path != DEMO_LOGBOOK:
        return Path(text.path).expanduser().absolute()
    path = cache_folder() / f"demo-logbook-{demo_logbook.VERSION}.jsonl"
    return path if path.is_file() else demo_logbook.write_dataset(path)


def dataset_path(dataset: DatasetSpec) -> Path:
    """The dataset on disk, absolute; the demo's character is drawn into the cache first."""
    if dataset.path != DEMO_CHARACTER:
        return Path(dataset.path).expanduser().absolute()
    folder = cache_folder() / f"demo-character-{demo_character.VERSION}"
    if not (folder / "dataset.toml").is_file():
        demo_character.write_dataset(folder)
    return folder


def _unfit(space: Space, trainer: Trainer) -> Iterable[str]:
    """What the trainer says of the space's configurations: each choice of each parameter once."""
    seen: dict[str, None] = {}
    for params in space.examples():
        seen.update(dict.fromkeys(trainer.check(params)))
    return seen


def _unknown_fixed(spec: StudySpec, space: Space) -> Iterable[str]:
    """Fixed values that neither the trainer nor the space has a use for: most likely misspelt."""
    rules = RULES.get(spec.trainer)
    if rules is None:
        return
    used = {*rules, *space.parameters, *space.derived, *space.external, *_own_fixed(spec)}
    for name in spec.fixed:
        if name not in used and not is_known(name, rules):
            yield f"fixed: unknown setting {name!r}; {nearest(name, used)}"


def _own_fixed(spec: StudySpec) -> Iterable[str]:
    return Space.load(spec.space, where="space").fixed


def _collect(mistakes: list[str], make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputErrors as errors:
        mistakes.extend(errors.mistakes)
    except InputError as error:
        mistakes.append(str(error))
    return None
