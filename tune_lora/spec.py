"""StudySpec: the one validated object that describes a study, and the YAML file it comes from.

Every mistake in a file is found in one pass and named with its line. Settings are closed: an unknown key is an error
with the nearest right one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from search_spaces import documents
from search_spaces.space import Space
from trainables import mirror_uri, user_module
from tune_lora.classifier_spec import ClassifierSpec
from tune_lora.closed import Closed, models_in
from tune_lora.custom_spec import CustomSpec
from tune_lora.dataset_spec import DEMO_CHARACTER, DatasetSpec
from tune_lora.errors import InputError, InputErrors, nearest
from tune_lora.folds_spec import CrossValidationSpec
from tune_lora.objective_spec import ObjectiveSpec
from tune_lora.phases_spec import AblationSpec, PhaseSpec
from tune_lora.scheduler_spec import SchedulerSpec
from tune_lora.search_spec import SearchSpec
from tune_lora.storage_url import written
from tune_lora.text_spec import TextSpec
from tune_lora.transfer_spec import TransferSpec

LARGEST_GIB = 2**20
LARGEST_PACK = 64
BASES = ("tiny-sd", "smollm2")
"""Known by name, wherever they lie."""


class EvaluationSpec(Closed):
    """How images are made for the score: the same prompts and seeds for every trial."""

    prompts: tuple[str, ...] = Field((), description="what is drawn, in turn; none: made of the captions")
    n_images: int = Field(8, ge=2, le=64, description="pictures an evaluation")
    seed: int = Field(1234, description="of the noise that pictures begin with; the same for every trial")
    steps: int = Field(15, ge=1, le=1000, description="of the diffusion sampler")
    guidance: float = Field(4.0, ge=1, description="classifier-free guidance; 1: off")
    clip: str | None = Field(None, description="path of ViT-B/32 weights; else the usual caches, else the miniature")
    lpips: str | None = Field(None, description="path of AlexNet weights; else the usual cache, else a random backbone")


class BudgetSpec(Closed):
    """When the study and its trials end."""

    n_trials: int = Field(
        50, ge=1, description="in all, however often the study goes on; unless given what the space says"
    )
    timeout_hours: float | None = Field(None, gt=0, description="the search ends after so many hours; null: never")
    plateau: int | None = Field(10, ge=1, description="finished trials without a better best; null: never")
    target: float | None = Field(None, description="the search ends when the best reaches it; null: no target")
    trial_timeout_hours: float | None = Field(
        None,
        gt=0,
        description="a trial that takes longer ends as trial_timeout (of a device that several share, its own part);"
        " null: never",
    )
    retries: int = Field(2, ge=0, description="of a trial that the infrastructure ended")
    storage_patience_minutes: float = Field(10, ge=0, description="how long a storage that does not answer is awaited")


class ResourcesSpec(Closed):
    """Of one trial. `concurrent` is how many run at a time, or ``auto``: as many as fit, also while nodes join and
    leave. Several `processes` train a trial together, each on its part of every batch. ``gpu: auto`` and ``memory:
    auto`` measure a trial and let as many as fit share a device, each with a base of its own; `packing` has several
    trials share one base, and `cpu`, `gpu` and `memory` are then those of a pack."""

    cpu: float = Field(1, gt=0, description="cores of a trial")
    gpu: float | Literal["auto"] | None = Field(
        None, description="null: one where there is one; auto: the share that one needs"
    )
    memory: float | Literal["auto"] | None = Field(
        None, description="GiB of RAM; null: not looked at, but with gpu: auto measured"
    )
    margin: float = Field(0.15, ge=0, le=4, description="of memory, kept free beside what was measured")
    processes: int | None = Field(None, ge=1, description="that train a trial together; null: one a GPU")
    concurrent: int | Literal["auto"] = Field("auto", description="trials at a time; auto: as many as fit")
    packing: int | Literal["auto", "off"] = Field(
        "off",
        description=f"trials of a LoRA study that share one base: 2 to {LARGEST_PACK}; auto: as many as is measured to"
        " pay",
    )
    wait_hours: float | None = Field(
        None, gt=0, le=1000, description="for a node that fits a trial, also to join later; null: refused at once"
    )
    address: str | None = Field(None, description="of a Ray cluster; null: RAY_ADDRESS, else this machine")
    mirror: str | None = Field(
        None, description="object storage for nodes that share no disk: s3://bucket/prefix?endpoint_override=host:port"
    )

    @field_validator("concurrent")
    @classmethod
    def concurrent_is_positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"got {value}; must be auto or a whole number from 1")
        return value

    @field_validator("packing", mode="before")
    @classmethod
    def packing_is_a_number_of_trials(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false; a pack of one is none.
        if value is False or (value == 1 and value is not True):
            return "off"
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if value in ("auto", "off") or (is_whole and 2 <= value <= LARGEST_PACK):
            return value
        raise ValueError(f"got {value!r}; must be auto, off or a whole number from 2 to {LARGEST_PACK}")

    @field_validator("mirror")
    @classmethod
    def mirror_holds_no_password(cls, value: str | None) -> str | None:
        if value is not None and (why := mirror_uri.mistake(value)) is not None:
            raise ValueError(why)
        return value

    @field_validator("gpu")
    @classmethod
    def gpu_share_can_be_placed(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float | int) and not (0 <= value <= 1 or (value > 1 and float(value).is_integer())):
            raise ValueError(f"got {value}; must be a share up to 1 or a whole number, or auto")
        return value

    @field_validator("memory")
    @classmethod
    def memory_is_positive(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float | int) and not 0 < value < LARGEST_GIB:
            raise ValueError(f"got {value}; must be above 0 and below {LARGEST_GIB} GiB, or auto")
        return value

    @model_validator(mode="after")
    def each_process_has_a_device(self) -> ResourcesSpec:
        if self.processes is None or self.processes == 1 or not self.gpu:
            return self
        if self.gpu == "auto":
            raise ValueError(f"processes: got {self.processes} with gpu: auto, which shares one; must be left out")
        if self.processes > max(1, self.gpu):
            raise ValueError(f"processes: got {self.processes} on {self.gpu:g} GPUs; must be at most one for each")
        return self

    @model_validator(mode="after")
    def one_base_is_in_one_process_on_one_device(self) -> ResourcesSpec:
        if self.packing == "off":
            return self
        if "auto" in (self.gpu, self.memory):
            name = "gpu" if self.gpu == "auto" else "memory"
            raise ValueError(
                f"packing: got {self.packing} with {name}: auto, which lets trials share a device in another way; must "
                "be one of the two"
            )
        if self.together > 1:
            of = f"{self.processes} processes" if self.processes else f"{self.gpu:g} GPUs"
            raise ValueError(
                f"packing: got {self.packing} with {of} a trial; must be off, since trials that share a base train in "
                "one process on one device"
            )
        if self.mirror is not None:
            raise ValueError(
                f"packing: got {self.packing} with mirror; must be off, since the files of packed trials lie in a "
                "folder that all nodes see"
            )
        return self

    @property
    def is_measured(self) -> bool:
        """Whether a trial is measured before the first."""
        return "auto" in (self.gpu, self.memory)

    @property
    def together(self) -> int:
        """How many processes train a trial together."""
        return self.processes or (max(1, int(self.gpu)) if isinstance(self.gpu, float) else 1)


class TrackingSpec(Closed):
    """Weights & Biases. ``auto``: online when logged in, offline otherwise."""

    wandb: Literal["auto", "online", "offline", "off"] = Field("auto", description="where runs go")
    project: str = Field("tune-lora", description="of Weights & Biases")

    @field_validator("wandb", mode="before")
    @classmethod
    def off_is_a_word(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false.
        return "off" if value is False else value


class CurveSpec(Closed):
    """Settings of the synthetic learning curves (`trainables.curve`)."""

    best_rate: float = Field(1e-3, gt=0, description="the learning rate at which the curve is lowest")
    noise: float = Field(0.005, ge=0, description="standard deviation of the score")
    nan_above: float | None = Field(None, gt=0, description="learning rates that end in NaN")
    crash_above: float | None = Field(None, gt=0, description="learning rates at which the trainer has a bug")
    seconds: float = Field(0.0, ge=0, description="slept each epoch")


_ABOUT: Mapping[str, Mapping[str, str]] = {
    "llm_lora": {"metric": "val_loss"},
    "classifier": {"metric": "val_acc", "direction": "maximize"},
}
"""The objective of a study whose file names none, where that is not the score."""


class StudySpec(Closed):
    """A study. `space` is the name of a shipped space, a path, or the space itself; `fixed` overrides its fixed
    values."""

    name: str = Field(description="of the study and of its results folder")
    base: str = Field(
        "tiny-sd",
        description="what a LoRA is trained on: tiny-sd, smollm2, a folder or file of a model, of text also a hub name",
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        None, description="what the base predicts; null: as its scheduler says, of a single SD 2.x file v_prediction"
    )
    dataset: DatasetSpec | None = None
    text: TextSpec | None = None
    data: ClassifierSpec | None = None
    trainer: Literal["diffusion_lora", "llm_lora", "two_stage", "classifier", "curve", "custom"] = Field(
        "diffusion_lora", description="how a trial trains"
    )
    trainable: str | None = Field(None, description="module:function, a trainer of the user's own")
    custom: CustomSpec = CustomSpec()
    curve: CurveSpec = CurveSpec()
    transfer: TransferSpec = TransferSpec()
    cross_validation: CrossValidationSpec = CrossValidationSpec()
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the frozen base, and of a classifier's training"
    )
    space: str | dict[str, Any] = Field(
        description="what may be tried: a shipped name, a YAML file, or the space itself"
    )
    preset: str | None = Field(None, description="one of the space's presets, such as conservative")
    fixed: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of every trial, in place of the space's; a parameter that is fixed is not searched",
    )
    search: SearchSpec = SearchSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    budget: BudgetSpec = BudgetSpec()
    phases: tuple[PhaseSpec, ...] = ()
    ablation: AblationSpec = AblationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    tracking: TrackingSpec = TrackingSpec()
    results: str = Field("results", description="the folder in which the results folder is made")
    storage: str | None = Field(None, description="any Optuna storage URL; null: study.db in the results folder")

    @model_validator(mode="before")
    @classmethod
    def a_trainable_is_a_custom_trainer(cls, given: Any) -> Any:
        """``trainable:`` alone says which trainer."""
        is_alone = isinstance(given, Mapping) and given.get("trainable") is not None and "trainer" not in given
        return {**given, "trainer": "custom"} if is_alone else given

    @model_validator(mode="before")
    @classmethod
    def each_trainer_is_about_something(cls, given: Any) -> Any:
        """What a study is about unless it says so: of images the score, of text the validation loss."""
        usual = _ABOUT.get(str(given.get("trainer"))) if isinstance(given, Mapping) else None
        if usual is None:
            return given
        objective = given.get("objective", {})
        if not isinstance(objective, Mapping) or "metrics" in objective or "metric" in objective:
            return given
        return {**given, "objective": {**usual, **objective}}

    @field_validator("name")
    @classmethod
    def name_is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(
                f"got {value!r}; must be letters, digits, '.', '_' or '-', starting with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def images_need_a_dataset(self) -> StudySpec:
        if self.trainer == "diffusion_lora" and self.dataset is None:
            raise ValueError("dataset is missing; must be given for the trainer diffusion_lora, with at least its path")
        return self

    @model_validator(mode="after")
    def language_models_need_text(self) -> StudySpec:
        if self.trainer == "llm_lora" and self.text is None:
            raise ValueError("text is missing; must be given for the trainer llm_lora, with at least its path")
        return self

    @model_validator(mode="after")
    def classifiers_need_data(self) -> StudySpec:
        if self.trainer == "classifier" and self.data is None:
            raise ValueError("data is missing; must be given for the trainer classifier, with at least its path")
        if self.data is not None and self.data.validation is not None and self.cross_validation.enabled:
            raise ValueError(
                f"data.validation: got {self.data.validation!r} with cross_validation, which makes its own validation "
                "rows; must be left out"
            )
        return self

    @model_validator(mode="after")
    def a_custom_trainer_has_a_trainable(self) -> StudySpec:
        if self.trainer == "custom" and self.trainable is None:
            raise ValueError("trainable is missing; must be module:function, such as my_module:train")
        if self.trainer != "custom" and self.trainable is not None:
            raise ValueError(
                f"trainable: got {self.trainable!r} beside the trainer {self.trainer}; must be one of them"
            )
        return self

    @field_validator("storage")
    @classmethod
    def storage_is_a_url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            shown = re.sub(r":[^:@]*@", ":***@", value)  # it may still hold a password
            raise ValueError(f"got {shown!r}; must be an Optuna storage URL such as sqlite:///study.db")
        return value

    @property
    def folder(self) -> Path:
        """Where the study leaves everything."""
        return Path(self.results) / self.name

    @property
    def extent(self) -> str:
        """How much it searches, in words."""
        if not self.phases:
            return f"{self.budget.n_trials} trials"
        return f"{sum(phase.n_trials for phase in self.phases)} trials in {len(self.phases)} phases"

    @property
    def storage_url(self) -> str:
        """The Optuna storage."""
        return self.storage or f"sqlite:///{(self.folder / 'study.db').resolve()}"

    def as_mapping(self, *, passwords: bool = False) -> dict[str, Any]:
        """Plain data that `from_mapping` reads back to an equal object; passwords in storage URLs are ``***`` unless
        asked for."""
        plain = _without_needless_nulls(self, self.model_dump(mode="json"))
        return plain if passwords else _without_passwords(plain)


def _without_passwords(plain: dict[str, Any]) -> dict[str, Any]:
    if "storage" in plain:
        plain["storage"] = written(plain["storage"])
    for earlier in plain["search"].get("warm_start", ()):
        earlier["study"] = written(earlier["study"])
    return plain


def _without_needless_nulls(model: BaseModel, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out nulls that say nothing. One in place of a default (`plateau`: never) is what the user chose."""
    kept: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        if name not in dumped or (dumped[name] is None and field.default is None):
            continue
        inner = getattr(model, name)
        kept[name] = _without_needless_nulls(inner, dumped[name]) if isinstance(inner, BaseModel) else dumped[name]
    return kept


DEFINING = (
    "base",
    "prediction_type",
    "dataset",
    "text",
    "data",
    "transfer",
    "trainer",
    "trainable",
    "custom",
    "cross_validation",
    "precision",
    "space",
    "preset",
    "fixed",
    "objective",
    "evaluation",
)
"""Settings that make two studies different: their trials cannot be compared when one of these differs."""


def load(path: Path) -> StudySpec:
    """Reads a study file; relative paths in it count from the file's folder.

    Raises:
        InputErrors: every mistake, each as ``file:line: place: what is wrong``.
    """
    if not path.is_file():
        raise InputError(
            f"study file {str(path)!r} does not exist; must be a YAML file (`tune-lora init FOLDER` writes one)"
        )
    try:
        text = path.read_text("utf-8")
        document, tree = documents.parse(text)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; must be a YAML study file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise InputError(
            f"{path}{place}: is not YAML ({getattr(error, 'problem', None) or 'cannot be parsed'})"
        ) from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds {type(document).__name__}; must be a mapping with name, dataset and space")
    return from_mapping(document, str(path), _lines(tree), relative_to=path.parent)


def from_mapping(
    document: Mapping[str, Any], source: str, lines: Mapping[str, int] | None = None, *, relative_to: Path | None = None
) -> StudySpec:
    """Validates plain data. `lines` maps dotted places to lines of `source`, for messages.

    Raises:
        InputErrors: every mistake.
    """
    lines = lines or {}
    try:
        spec = StudySpec.model_validate(dict(document))
    except ValidationError as error:
        raise InputErrors(_mistake(detail, source, lines) for detail in error.errors()) from None
    found = with_paths_from(spec, relative_to) if relative_to is not None else spec
    return found if "n_trials" in found.budget.model_fields_set else _with_trials_of_space(found)


def _with_trials_of_space(spec: StudySpec) -> StudySpec:
    """A study that does not say how many trials has as many as its space says."""
    try:
        usual = Space.load(spec.space).n_trials
    except InputError:  # whoever builds the study says what is wrong with its space
        return spec
    budget = BudgetSpec(**{**spec.budget.model_dump(exclude_unset=True), "n_trials": usual})
    return spec.model_copy(update={"budget": budget})


def with_paths_from(spec: StudySpec, folder: Path, sections: Collection[str] | None = None) -> StudySpec:
    """Paths in a study file count from the file; one that exists from here only is taken from here. `sections` are
    those whose paths are looked at; None is all of them."""

    def found(path: str) -> str:
        try:
            beside = folder / Path(path).expanduser()
            return str(beside.resolve()) if beside.exists() else path
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home of nobody, a null byte
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"path: got {path!r}, which can be none ({reason}); must be a file or a folder") from None

    updates = _paths_mapped(spec, found)
    if spec.trainable is not None:
        updates["trainable"] = user_module.located(spec.trainable, folder)
    return spec.model_copy(update={name: new for name, new in updates.items() if sections is None or name in sections})


def with_paths(spec: StudySpec, found: Callable[[str], str]) -> StudySpec:
    """The study with each path of data, weights, earlier studies and its space as `found` has it; not its own trainer's
    nor that of its results."""
    return spec.model_copy(update=_paths_mapped(spec, found))


def _paths_mapped(spec: StudySpec, found: Callable[[str], str]) -> dict[str, Any]:
    """The sections that hold paths, by name, with each path as `found` has it."""
    updates: dict[str, Any] = {}
    if spec.dataset is not None and spec.dataset.path != DEMO_CHARACTER:
        updates["dataset"] = spec.dataset.model_copy(update={"path": found(spec.dataset.path)})
    if spec.text is not None:
        updates["text"] = spec.text.with_paths(found)
    if spec.data is not None:
        updates["data"] = spec.data.with_paths(found)
    updates["transfer"] = spec.transfer.with_paths(found)
    if spec.base not in BASES:
        updates["base"] = found(spec.base)
    if isinstance(spec.space, str) and spec.space.endswith((".yaml", ".yml")):
        updates["space"] = found(spec.space)
    weights = {name: found(path) for name in ("clip", "lpips") if (path := getattr(spec.evaluation, name))}
    updates["search"] = spec.search.with_paths(found)
    if weights:
        updates["evaluation"] = spec.evaluation.model_copy(update=weights)
    return updates


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which defining settings differ, each as ``place: old -> new``. Settings that an earlier version did not know had
    their defaults then."""
    found: list[str] = []
    old = _completed(old)
    for name in DEFINING:
        found.extend(_differing(old.get(name), new.get(name), name))
    return found


def _completed(written: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return StudySpec.model_validate(dict(written)).as_mapping()
    except ValidationError:  # this version refuses what an earlier one took: compared as it stands
        return written


def _differing(old: Any, new: Any, place: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(set(old) | set(new), key=str):
            yield from _differing(old.get(key), new.get(key), f"{place}.{key}")
    elif old != new:
        yield f"{place}: {old!r} -> {new!r}"


def _lines(node: yaml.Node | None, place: str = "") -> dict[str, int]:
    """Line numbers (from 1) of every key, by dotted place."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{place}.{key.value}" if place else str(key.value)
            found[name] = key.start_mark.line + 1
            found |= _lines(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            name = f"{place}.{index}"
            found[name] = value.start_mark.line + 1
            found |= _lines(value, name)
    return found


def line_of(place: str, lines: Mapping[str, int]) -> int | None:
    """The line of a place, or of the nearest thing around it."""
    while place and place not in lines:
        place = place.rpartition(".")[0]
    return lines.get(place)


def located(message: str, place: str, source: str, lines: Mapping[str, int]) -> str:
    """``file:line: place: message``."""
    line = line_of(place, lines)
    return f"{source}{f':{line}' if line else ''}: {f'{place}: ' if place else ''}{message}"


def _mistake(detail: ErrorDetails, source: str, lines: Mapping[str, int]) -> str:
    # Union members are named in pydantic's location; only real keys are places.
    places = [part for part in detail["loc"] if not _names_a_union_member(part)]
    if detail["type"] == "extra_forbidden" and places[-1:] != [detail["loc"][-1]]:
        places.append(detail["loc"][-1])  # a key that somebody wrote, even if it is called `int`
    parts = [str(part) for part in places]
    return located(_wording(detail, parts), ".".join(parts), source, lines)


def _names_a_union_member(part: str | int) -> bool:
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)


def _wording(detail: ErrorDetails, parts: list[str]) -> str:
    kind, got, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {parts[-1]!r}; {nearest(parts[-1], _keys_at(parts[:-1]))}"
    if kind == "missing":
        return "is missing; must be given"
    if kind == "value_error":
        return str(context["error"])
    expected = detail["msg"].removeprefix("Input should be ")
    return f"got {got!r}; must be {expected}"


def _keys_at(parts: list[str]) -> list[str]:
    """The keys that a section of the study file knows."""
    model: type[BaseModel] = StudySpec
    for part in (part for part in parts if not part.isdigit()):  # an entry of a list
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = next(models_in(annotation), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)
