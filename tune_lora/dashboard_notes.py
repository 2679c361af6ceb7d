"""What optuna-dashboard shows beside a study's numbers: notes in Markdown, pictures, and where else to look."""

from __future__ import annotations

import json
import mimetypes
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna_dashboard import save_note

from trainables import json_text
from trainables.paths import inside
from tune_lora import preferences, rating_view, store, wording
from tune_lora.store import StudyRecord, TrialRecord

PICTURES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
RAY_PORT = 8265
_ARTIFACTS = "dashboard:artifacts"  # + trial's id + artifact: among the study's attributes, since trials have ended
_RUNS = Path("wandb") / "tracked.jsonl"
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_MEANING = ("network_alpha", "lora_alpha", "learning_rate", "network_dim", "lora_rank")


@dataclass
class Shown:
    """What is held of one trial: how it stood then, its attributes among the study's, its pictures by artifact."""

    stood: tuple[str, int]
    attributes: Mapping[str, Any]
    pictures: Mapping[str, Path]


@dataclass
class Notes:
    """Notes and pictures of a study in a results folder, made anew for those trials only that have moved on."""

    study: optuna.Study
    folder: Path
    _trials: dict[int, Shown] = field(default_factory=dict)

    def read(self) -> tuple[dict[str, Any], dict[str, Path]]:
        """System attributes of the study that hold the notes and the list of pictures; and the pictures by artifact."""
        frozen = self.study.get_trials(deepcopy=False)
        record = store.record_of(self.study, map(store.record, frozen))
        attributes = _note_attributes(self.study._study_id, None, study_note(record, self.folder))
        places = {trial.number: place for place, trial in enumerate(record.ranked(), start=1)}
        for trial, stored in zip(record.trials, frozen, strict=True):
            stood = (f"{trial.state} {places.get(trial.number)}", trial.last_budget)
            held = self._trials.get(trial.number)
            if held is None or held.stood != stood:
                held = self._trials[trial.number] = self._made(record, trial, stored._trial_id, stood, places)
            attributes |= held.attributes
        return attributes, {name: path for held in self._trials.values() for name, path in held.pictures.items()}

    def _made(
        self, record: StudyRecord, trial: TrialRecord, trial_id: int, stood: tuple[str, int], places: Mapping[int, int]
    ) -> Shown:
        note = trial_note(record, trial, self.folder, places.get(trial.number))
        listed = artifacts(trial, self.folder)
        attributes = _note_attributes(self.study._study_id, trial_id, note)
        attributes |= {f"{_ARTIFACTS}:{trial_id}:{name}": json.dumps(told) for name, (_, told) in listed.items()}
        return Shown(stood, attributes, {name: path for name, (path, _) in listed.items()})


def study_note(record: StudyRecord, folder: Path) -> str:
    """What stands on the study's page: how it goes, what to beware of, where else to look."""
    lines = [wording.counts_line(record), f"goal: {wording.goal(record)}"]
    if record.best is not None:
        lines.append(f"best: trial {record.best.number}, {wording.scored(record, record.best)}")
    lines += [wording.improvement(record), *wording.caveats(record), *wording.trade(record)]
    if (rated := preferences.of(record)) is not None:
        lines += rating_view.lines(rated)
    if record.stop_reason:
        lines.append(f"stopped: {record.stop_reason}")
    told = [f"- {_plain(line)}" for line in lines if line]
    told += [f"- [Weights & Biases]({address})" for address in _weights_and_biases(folder)]
    told += [f"- {_ray_dashboard(record)}", f"- files: {_code(folder)}"]
    return "\n".join([f"## {_plain(record.name)}", "", *told])


def trial_note(record: StudyRecord, trial: TrialRecord, folder: Path, place: int | None) -> str:
    """What stands on a trial's page: what became of it and why, its checkpoint, alpha with its ratio, its origin."""
    ended = f"**{trial.state}**"
    if place is not None:
        ended += f", {_plain(wording.scored(record, trial))}, place {place} of {len(record.ranked())}"
    lines = [ended]
    if why := ": ".join(filter(None, [wording.cause(trial), trial.message])):
        lines.append(f"cause: {_plain(why)}")
    told = [f"{name} {wording.setting(name, trial.config)}" for name in _MEANING if name in trial.config]
    lines += [_plain(", ".join(told))] if told else []
    lines.append(f"from: {_plain('; '.join([trial.provenance, *trial.notes]))}")
    lines += [f"{what}: {_code(path)}" for what, path in _files(trial, folder)]
    lines += [f"[Weights & Biases]({address})" for address in _weights_and_biases(folder)]
    return "\n".join(f"- {line}" for line in lines)


def artifacts(trial: TrialRecord, folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A trial's pictures inside of the study's trials by a name of their own, with what the dashboard is told of them.

    They are named by a database that anyone may have written.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    trials = inside(folder, "trials")
    for budget, named in trial.images.items():
        for label, relative in named.items():
            path = inside(folder, relative)
            kind = mimetypes.guess_type(relative)[0]
            if path is None or trials is None or not path.is_relative_to(trials) or kind not in PICTURES:
                continue
            name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{trial.number}/{budget}/{label}"))
            shown = f"{label}{path.suffix}"
            found[name] = (path, {"artifact_id": name, "filename": shown, "mimetype": kind, "encoding": None})
    return found


def _files(trial: TrialRecord, folder: Path) -> list[tuple[str, Path]]:
    mine = folder / "trials" / str(trial.number)
    checkpoints = sorted(path for path in (mine / "checkpoint").glob("*") if path.is_dir())
    adapters = sorted((mine / "lora").glob("*.safetensors"))
    return [("checkpoint", path) for path in checkpoints[-1:]] + [("LoRA", path) for path in adapters]


def _weights_and_biases(folder: Path) -> list[str]:
    """Where the study's runs can be seen, by what tracking wrote down; only what is a web address."""
    try:
        text = (folder / _RUNS).read_text("utf-8", errors="replace")
    except OSError:
        return []
    found = None
    for line in text.splitlines():
        try:
            told = json_text.parse(line)
        except ValueError:
            continue
        found = told["url"] if isinstance(told, dict) and isinstance(told.get("url"), str) else found
    return [found] if found is not None and _is_address(found) else []


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not set(text) & set(" ()<>[]\"'\\`\n\t")


def _ray_dashboard(record: StudyRecord) -> str:
    """Where Ray's own dashboard is: nobody is called for it."""
    address = (record.spec.get("resources") or {}).get("address")
    if not address:
        return "Ray: a session of this machine, which has no dashboard"
    host = str(address).rpartition("://")[2].rpartition(":")[0]
    link = f"http://{host if host.isascii() and host else '127.0.0.1'}:{RAY_PORT}"
    return f"[Ray dashboard]({link})" if _is_address(link) else "Ray: a cluster"


def _plain(text: str) -> str:
    """Foreign text so that Markdown shows it as it is, and nothing in it becomes a link, a picture or HTML."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def _code(path: Path) -> str:
    """A path as a piece of code."""
    return f"`{str(path).replace('`', '?')}`"


class _Collected:
    """The part of a storage that `save_note` writes in."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        del study_id
        return self.held

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        del study_id
        self.held[key] = value


@dataclass(frozen=True)
class _Study:
    _study_id: int


@dataclass(frozen=True)
class _Noted:
    """What `save_note` knows of a trial."""

    storage: _Collected
    study: _Study
    _trial_id: int | None


def _note_attributes(study_id: int, trial_id: int | None, body: str) -> dict[str, Any]:
    """The attributes in which optuna-dashboard keeps a note, by its own hand; of the study where there is no trial."""
    collected = _Collected()
    save_note(_Noted(collected, _Study(study_id), trial_id), body)
    return collected.held
