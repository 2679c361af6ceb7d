"""The trainers that a study file can name: what each is made of, what it measures, what it must be given.

To add one: its file in `trainables/`, a section for its settings, and an entry in `KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trainables import classifier, curve, demos, diffusion_lora, llm_lora, two_stage
from trainables.classification import data as examples
from trainables.classification.split import Folds
from trainables.classifier import Classifier
from trainables.curve import Curve
from trainables.custom import Custom
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.llm_lora import LlmLora
from trainables.lora.paths import resolve_base
from trainables.lora.settings import IMAGE_RULES
from trainables.lora.text import sources as text_sources
from trainables.paths import cache_folder
from trainables.protocol import Trainer
from trainables.rules import Rule
from trainables.transfer.settings import RULES as TRANSFER_RULES
from trainables.two_stage import TwoStage
from tune_lora.classifier_spec import DEMO_SHAPES, ClassifierSpec
from tune_lora.dataset_spec import DEMO_CHARACTER, DatasetSpec
from tune_lora.errors import InputError
from tune_lora.records import CLOCK
from tune_lora.scheduler_spec import READS
from tune_lora.spec import StudySpec
from tune_lora.text_spec import DEMO_LOGBOOK, TextSpec


def _the_same(spec: StudySpec, trainer: Trainer) -> Trainer:  # noqa: ARG001  # of those that differ
    return trainer


def _nothing(spec: StudySpec, trainer: Any) -> Iterable[Callable[[], object]]:  # noqa: ARG001  # of those that check
    return ()


@dataclass(frozen=True)
class Kind:
    """One kind of trainer.

    `make` builds it from a study. `metrics` is what its last report holds, None where that is not known beforehand.
    `rules` say what a configuration may hold, None where anything goes. Each of `checks` raises InputError or
    InputErrors when what the study names cannot be used. `final` is the form that trains one configuration to its end.
    `epochs` is the setting that says how long a trial is, `patience` the one that says how many epochs without a better
    value end the training of a single configuration (None: nothing does). `said_twice` are settings that say the
    same in two ways. `told` are values that a space may derive for people and for advice, though no trainer reads them.
    `same_for_all` are settings that make another task of the data, with other rows in each fold: no parameters.
    `folds`: whether it cross-validates its trials.
    """

    make: Callable[[StudySpec], Trainer]
    metrics: Callable[[StudySpec], tuple[str, ...] | None]
    rules: Mapping[str, Rule] | None = None
    checks: Callable[[StudySpec, Any], Iterable[Callable[[], object]]] = _nothing
    final: Callable[[StudySpec, Trainer], Trainer] = _the_same
    epochs: str = "max_train_epochs"
    patience: str | None = None
    said_twice: tuple[tuple[str, str], ...] = ()
    told: tuple[str, ...] = ()
    same_for_all: tuple[str, ...] = ()
    folds: Literal["never", "optional", "always"] = "never"


def kind_of(spec: StudySpec) -> Kind:
    """The kind of the study's trainer."""
    return KINDS[spec.trainer]


def is_cross_validated(spec: StudySpec) -> bool:
    """Whether the study's trials are judged in folds."""
    asked = spec.cross_validation.enabled
    return kind_of(spec).folds == "always" if asked is None else asked


def trainer_of(spec: StudySpec) -> Trainer:
    """The trainer that the study's trials run."""
    return kind_of(spec).make(spec)


def final_trainer_of(spec: StudySpec) -> Trainer:
    """The trainer that trains one configuration of the study to its end, and exports it."""
    return kind_of(spec).final(spec, trainer_of(spec))


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
            preference=objective.preference.learnt() if objective.preference is not None else None,
        ),
        precision=spec.precision,
        trial_timeout_seconds=seconds(spec),
    )


def image_metrics(spec: StudySpec) -> tuple[str, ...]:
    """What the last report of an image LoRA holds."""
    learnt = ("preference",) if spec.objective.preference is not None else ()
    return (*diffusion_lora.METRICS, *learnt)


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
        trial_timeout_seconds=seconds(spec),
    )


def classifier_trainer(spec: StudySpec) -> Classifier:
    """The classifier of a study.

    Raises:
        InputError: the study has no data.
    """
    if spec.data is None:
        raise InputError(f"study {spec.name!r} has no data; must have some to train a classifier")
    asked, objective = spec.cross_validation, spec.objective
    return Classifier(
        source=spec.data.source(examples_path(spec.data)),
        folds=Folds(asked.n_folds, asked.aggregation, asked.seed) if asked.enabled else None,
        objective=objective.several[0].name if objective.several else objective.metric,
        precision=spec.precision,
        weights=spec.data.weights_by_architecture(),
        normalisation=spec.data.normalisation,
        trial_timeout_seconds=seconds(spec),
    )


def final_classifier(spec: StudySpec, trainer: Trainer) -> Classifier:  # noqa: ARG001  # as others
    """Judged by rows that are held out once, and exported."""
    assert isinstance(trainer, Classifier)  # the registry pairs them
    return replace(trainer, folds=None, exported=True)


def classifier_metrics(spec: StudySpec) -> tuple[str, ...] | None:
    """What a classifier measures of its kind of data; None where that depends on the values of a column, or on data
    that cannot be read."""
    if spec.data is None or spec.data.group is not None:
        return None
    try:
        kind = examples.kind_of(spec.data.source(examples_path(spec.data)))
    except InputError:  # the checks tell
        return None
    measured: tuple[str, ...] = (*classifier.METRICS, *classifier.MODALITY_METRICS)
    if kind != "image_text":
        measured = tuple(name for name in classifier.METRICS if name != classifier.WORST)
    folds = (*classifier.FOLD_METRICS, *(f"{name}_spread" for name in measured))
    return (*measured, *(folds if spec.cross_validation.enabled else ()))


def custom_trainer(spec: StudySpec) -> Custom:
    """The trainer that runs a function of the user's.

    Raises:
        InputError: the study names none.
    """
    if spec.trainable is None:
        raise InputError(f"study {spec.name!r} has no trainable; must have one to run a trainer of your own")
    about = tuple(one.name for one in spec.objective.several if one.name not in CLOCK) or (spec.objective.metric,)
    return Custom(spec.trainable, spec.custom.horizon, spec.custom.unit, about)


def custom_metrics(spec: StudySpec) -> tuple[str, ...] | None:
    """What the study or the function says that it measures; None where neither does, or there is no such function."""
    if spec.custom.metrics is not None:
        return spec.custom.metrics
    try:
        return custom_trainer(spec).metrics()
    except InputError:  # the checks tell
        return None


def epochs_of(spec: StudySpec) -> str:
    """The setting that says how long a trial of the study is.

    Raises:
        InputError: it is no setting but the same number for all.
    """
    if spec.trainer != "custom":
        return kind_of(spec).epochs
    length = custom_trainer(spec).length_setting()
    if not isinstance(length, str):
        raise InputError("--epochs: how long a trial is stands in no setting of this study (custom.horizon)")
    return length


def transfer_trainer(spec: StudySpec) -> TwoStage:
    """The two-stage trainer of a study. Where a scheduler looks at each fold, two train side by side and then the
    others; where one has rungs, the trial sees whether they lie between folds."""
    validation, folds = spec.cross_validation, spec.transfer.folds
    if folds == "auto" and "watch" in READS[spec.scheduler.name]:
        folds = "blocks"
    return spec.transfer.trainer(
        cache_folder() / "stage1",
        n_folds=validation.n_folds,
        fold_seed=validation.seed,
        aggregation=validation.aggregation,
        folds=folds,
        trial_timeout_seconds=seconds(spec),
    )


def seconds(spec: StudySpec) -> float | None:
    """The limit of one trial."""
    hours = spec.budget.trial_timeout_hours
    return None if hours is None else hours * 3600


def text_path(text: TextSpec) -> Path:
    """The examples on disk, absolute; the demo's are written into the cache first."""
    if text.path != DEMO_LOGBOOK:
        return Path(text.path).expanduser().absolute()
    return demos.path_of(DEMO_LOGBOOK)


def examples_path(data: ClassifierSpec) -> Path:
    """Labelled examples on disk, absolute; the demo's are drawn into the cache first."""
    if data.path != DEMO_SHAPES:
        return Path(data.path).expanduser().absolute()
    return demos.path_of(DEMO_SHAPES)


def dataset_path(dataset: DatasetSpec) -> Path:
    """The dataset on disk, absolute; the demo's character is drawn into the cache first."""
    if dataset.path != DEMO_CHARACTER:
        return Path(dataset.path).expanduser().absolute()
    return demos.path_of(DEMO_CHARACTER)


def _curve(spec: StudySpec) -> Curve:
    chosen = spec.curve
    failing = (chosen.nan_above or math.inf, chosen.crash_above or math.inf)
    return Curve(chosen.best_rate, chosen.noise, *failing, chosen.seconds)


def _image_checks(spec: StudySpec, trainer: DiffusionLora) -> Iterable[Callable[[], object]]:
    return (lambda: resolve_base(spec.base), trainer.load_dataset)


def _text_checks(spec: StudySpec, trainer: LlmLora) -> Iterable[Callable[[], object]]:
    return (lambda: text_sources.resolve(spec.base), trainer.check_data)


def _classifier_checks(spec: StudySpec, trainer: Classifier) -> Iterable[Callable[[], object]]:
    return (lambda: _one_process(spec), trainer.check_data)


def _one_process(spec: StudySpec) -> None:
    if spec.resources.together > 1:
        raise InputError(
            f"resources: got {spec.resources.together} processes a trial, but the trainer {spec.trainer} trains in "
            "one; must be 1 (several trials run side by side)"
        )


def _custom_checks(spec: StudySpec, trainer: Custom) -> Iterable[Callable[[], object]]:  # noqa: ARG001  # as others
    return (trainer.function,)


KINDS: Mapping[str, Kind] = {
    "diffusion_lora": Kind(image_trainer, image_metrics, IMAGE_RULES, _image_checks, told=("network_alpha_ratio",)),
    "llm_lora": Kind(
        text_trainer,
        lambda _: llm_lora.METRICS,
        llm_lora.RULES,
        _text_checks,
        epochs="epochs",
        said_twice=llm_lora.SAID_TWICE,
        told=("lora_alpha_ratio",),
    ),
    "custom": Kind(custom_trainer, custom_metrics, checks=_custom_checks, epochs="epochs"),
    "classifier": Kind(
        classifier_trainer,
        classifier_metrics,
        classifier.RULES,
        _classifier_checks,
        final_classifier,
        epochs="training.epochs",
        patience="training.early_stopping",
        said_twice=classifier.SAID_TWICE,
        same_for_all=("data.n_classes", "n_classes"),
        folds="optional",
    ),
    "curve": Kind(_curve, lambda _: curve.METRICS),
    "two_stage": Kind(
        transfer_trainer,
        lambda _: two_stage.METRICS,
        TRANSFER_RULES,
        lambda _, trainer: (trainer.check_data,),
        final=lambda spec, _: replace(transfer_trainer(spec), final=True),
        epochs="stage2_final_epochs",
        patience="stage2_final_patience",
        folds="always",
    ),
}
"""By the name that a study file gives as its `trainer`."""
