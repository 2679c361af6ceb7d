"""Rules of thumb held against a training configuration, and against what a finished study measured.

The rules are data (``advice.yaml``); this file reads them, works out the facts they ask about, and says which apply.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna

from search_spaces import documents
from search_spaces.expressions import Expression, parse
from trainables.classification.settings import KINDS as DATA_KINDS
from trainables.classification.settings import SETTINGS
from trainables.rules import is_known
from tune_lora import build, sources, spec, store
from tune_lora.advice_evidence import evidence
from tune_lora.errors import InputError
from tune_lora.records import StudyRecord
from tune_lora.spec import StudySpec
from tune_lora.trainers import KINDS

Status = Literal["good", "could be better", "risky", "bad"]
STATUSES: tuple[Status, ...] = ("bad", "risky", "could be better", "good")
"""The worst first."""
RULES_FILE = Path(__file__).with_name("advice.yaml")
FEATURES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048, "efficientnet_b0": 1280}
"""What a backbone gives, per image."""
_RATIOS = {"network_alpha_ratio": ("network_alpha", "network_dim"), "lora_alpha_ratio": ("lora_alpha", "lora_rank")}
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "classifier": {one.name: one.default for one in SETTINGS if one.kinds == DATA_KINDS and one.default is not None}
}
"""What holds where a configuration says nothing, of settings that mean something for every kind of data."""


@dataclass(frozen=True)
class Rule:
    """One rule of ``advice.yaml``, where its keys are described."""

    id: str
    trainer: str
    about: str
    when: Expression
    better: Expression
    status: Status
    why: str
    try_: str
    priority: int
    risk: str
    source: str
    optional: frozenset[str] = frozenset()

    def holds(self, expression: Expression, values: Mapping[str, Any]) -> bool | None:
        """Whether `when` or `better` holds; None where a name is unknown that is not optional."""
        known = {name: values.get(name) for name in expression.names}
        if any(value is None and name not in self.optional for name, value in known.items()):
            return None
        return bool(expression(known))


@dataclass(frozen=True)
class Advice:
    """One row of the table. `measured` is what a study says to it; empty without one."""

    rule: str
    setting: str
    value: Any
    status: Status
    why: str
    what_to_try: str
    priority: int
    risk: str
    source: str
    measured: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """A configuration and what is known around it."""

    config: Mapping[str, Any]
    trainer: str
    study: StudySpec | None = None


@functools.cache
def rules() -> tuple[Rule, ...]:
    """The rules in the order of the file."""
    return tuple(_rule(entry) for entry in documents.with_numbers(documents.read(RULES_FILE))["rules"])


def _rule(entry: Mapping[str, Any]) -> Rule:
    return Rule(
        id=entry["id"],
        trainer=entry["for"],
        about=entry["about"],
        when=parse(entry["when"]),
        better=parse(entry["better"]),
        status=entry["status"],
        why=entry["why"],
        try_=str(entry.get("try", "")),
        priority=entry["priority"],
        risk=entry["risk"],
        source=entry["source"],
        optional=frozenset(entry.get("optional", ())),
    )


def advise(path: Path, results: Path | None = None) -> list[Advice]:
    """What the rules say to the configuration in a file: what is worst and matters most first.

    `path` is a configuration such as ``best_config.yaml``, nested or flat, or a study file, of which the default
    configuration is taken. With `results` each rule is checked against that study.

    Raises:
        InputError: a file is not what it should be, or nobody knows the trainer whose configuration it is.
    """
    subject = subject_of(path, sources.finished_study(results)[0] if results is not None else None)
    found = about(subject)
    if results is not None:
        folder = sources.results_folder(results)
        opened = store.load_study(folder)
        record = store.read(opened)
        found = [measured(one, subject, record, opened) for one in found]
    return sorted(found, key=lambda one: (STATUSES.index(one.status), one.priority))


def subject_of(path: Path, study: StudySpec | None = None) -> Subject:
    """The configuration that a file holds, and the study it belongs to: `study`, else the one beside it.

    Raises:
        InputError: no trainer has such settings, or `study` is of another trainer.
    """
    content = documents.with_numbers(sources.configuration(path))
    if "space" in content or any(name.startswith("space.") for name in content):
        found = spec.load(path)
        space = build.space_of(found)
        return Subject(space.resolve(space.defaults()), found.trainer, found)
    if study is not None:
        if not _may_be(study.trainer, content):
            raise InputError(f"{path}: holds no settings of {study.trainer}, the trainer of the study {study.name!r}")
        return Subject(content, study.trainer, study)
    beside = path.parent / sources.STUDY_FILE
    if beside.is_file():
        found = spec.load(beside)
        if _may_be(found.trainer, content):
            return Subject(content, found.trainer, found)
    return Subject(content, _trainer_of(path, content))


def _known(config: Mapping[str, Any]) -> dict[str, int]:
    """How many of a configuration's names each trainer knows."""
    return {
        name: sum(is_known(setting, kind.rules) for setting in config) for name, kind in KINDS.items() if kind.rules
    }


def _may_be(trainer: str, config: Mapping[str, Any]) -> bool:
    """Whether no other trainer knows more of a configuration; of a trainer without rules anything may be."""
    known = _known(config)
    return trainer not in known or known[trainer] == max(known.values()) > 0


def _trainer_of(path: Path, config: Mapping[str, Any]) -> str:
    """The trainer that knows most of a configuration's names."""
    known = _known(config)
    best = max(known, key=lambda name: known[name])
    if not known[best]:
        raise InputError(f"{path}: holds no setting of any trainer; must be a configuration such as best_config.yaml")
    return best


def about(subject: Subject) -> list[Advice]:
    """What the rules say to a configuration, in the order of the rules."""
    values = facts(subject.config, subject)
    return [
        Advice(
            one.id, one.about, values.get(one.about), one.status, one.why, one.try_, one.priority, one.risk, one.source
        )
        for one in rules()
        if one.trainer == subject.trainer and one.holds(one.when, values)
    ]


def facts(config: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    """A configuration by canonical names, with what is usual where it says nothing, and what follows from it."""
    canonical = _canonical(subject.trainer)
    usual = _USUAL.get(subject.trainer, {})
    values: dict[str, Any] = {**usual, **{canonical.get(name, name): value for name, value in config.items()}}
    for ratio, (alpha, rank) in _RATIOS.items():
        if ratio not in values and values.get(alpha) is not None and values.get(rank):
            values[ratio] = values[alpha] / values[rank]
        if alpha not in values and values.get(ratio) is not None and values.get(rank):
            values[alpha] = int(values[rank] * values[ratio])
    values["full_size"] = subject.study is None or subject.study.base != "tiny-sd"
    values |= _backbone(values, subject.study)
    return values


def _backbone(values: Mapping[str, Any], study: StudySpec | None) -> dict[str, Any]:
    """Whether an image classifier's backbone is pretrained, and its size. Without a study torchvision's ones are."""
    architecture = values.get("model.architecture")
    data = getattr(study, "data", None)
    pretrained = architecture in FEATURES if data is None else getattr(data, "weights", None) is not None
    found: dict[str, Any] = {"pretrained": values.get("model.pretrained", values.get("pretrained", pretrained))}
    if architecture in FEATURES:
        found["backbone_features"] = FEATURES[architecture]
    return found


def measured(one: Advice, subject: Subject, record: StudyRecord, study: optuna.Study) -> Advice:
    """The same with what a study says to it."""
    rule = next(rule for rule in rules() if rule.id == one.rule)

    def recommended(config: Mapping[str, Any]) -> bool | None:
        return rule.holds(rule.better, facts(config, subject))

    asked = _searched(rule, subject, record.parameter_names)
    return replace(one, measured=evidence(record, study, asked, recommended))


def _searched(rule: Rule, subject: Subject, names: Iterable[str]) -> list[str]:
    """The study's hyperparameters that a rule asks about, by the names they have there; the one it is about first."""
    canonical = _canonical(subject.trainer)
    parts = {part for ratio, both in _RATIOS.items() for part in (ratio, *both) if rule.about in (ratio, both[0])}
    wanted = {rule.about, *rule.better.names, *parts}
    found = [name for name in names if canonical.get(name, name) in wanted]
    return sorted(found, key=lambda name: canonical.get(name, name) != rule.about)


def _canonical(trainer: str) -> dict[str, str]:
    """Dotted names by their flat ones."""
    return {alias: name for name, alias in KINDS[trainer].said_twice if "." in name}
