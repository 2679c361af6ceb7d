"""From what a person names (a study file, a results folder, a study.db, a space) to what it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search_spaces import documents
from search_spaces.space import Space
from tune_lora import build, overrides, spec, store
from tune_lora.errors import InputError
from tune_lora.search_spec import SearchSpec
from tune_lora.spec import StudySpec
from tune_lora.storage_url import named_in
from tune_lora.store import StudyRecord

DATABASE = "study.db"
STUDY_FILE = "study.yaml"
PHASES = "phases.json"


def results_folder(path: Path) -> Path:
    """The results folder that `path` is, is in, or (a study file) leads to.

    Raises:
        InputError: nothing is there, or the study has not been run.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; must be a results folder, its {DATABASE}, or a study file")
    folder = path if path.is_dir() else path.parent
    if not (folder / DATABASE).is_file() and path.is_file():
        folder = spec.load(path).folder
    if (folder / PHASES).is_file() and (parts := sorted(part.name for part in folder.iterdir() if holds_study(part))):
        raise InputError(f"{folder}: holds a study of phases; must be one of its parts: {', '.join(parts)}")
    if not holds_study(folder):
        raise InputError(f"{folder}: no {DATABASE} here; `tune-lora run STUDY` makes it")
    return folder


def holds_study(folder: Path) -> bool:
    """Whether a folder is the results folder of a study, whose database may be elsewhere.

    Raises:
        InputError: its study.yaml cannot be read.
    """
    return (folder / DATABASE).is_file() or (folder.is_dir() and named_in(folder) is not None)


def record_of(path: Path) -> StudyRecord:
    """The records of a study that was run. Raises InputError as `results_folder` does."""
    return store.load(results_folder(path))


def planned_trials(record: StudyRecord) -> int:
    """How many trials the study's file asks for; as many as there are where it cannot be told."""
    planned = record.spec.get("budget", {}).get("n_trials")
    return int(planned) if planned else len(record.trials)


def finished_study(path: Path) -> tuple[StudySpec, StudyRecord, Path]:
    """Study file, records and folder of a study that was run; its folder may have been moved since.

    Raises:
        InputError: there is no such study.
    """
    folder = results_folder(path)
    record = store.load(folder)
    found = spec.from_mapping(record.spec, str(folder / DATABASE))
    # The file of the results names the folder it was run in; what lies here now is what is meant.
    return found.model_copy(update={"results": str(folder.resolve().parent)}), record, folder


def study_file_of(path: Path) -> StudySpec:
    """The study that a study file holds or that a results folder was made from.

    Raises:
        InputError: there is none.
    """
    return spec.load(path) if path.suffix in (".yaml", ".yml") else finished_study(path)[0]


def study_to_resume(path: Path) -> StudySpec:
    """The study of a results folder, ready to go on in that folder.

    Raises:
        InputError: there is no such study, or the folder no longer has the study's name.
    """
    found, record, folder = finished_study(path)
    if folder.resolve().name != record.name:
        raise InputError(f"{folder}: holds the study {record.name!r}; must be a folder of that name to go on in")
    return found


def space_and_search(what: str, given: Mapping[str, Any] | None = None) -> tuple[Space, SearchSpec]:
    """The space that a study file, a space file or the name of a shipped space stands for, and how it is searched.

    `given` are values in their place, as `tune_lora.overrides` has them.

    Raises:
        InputError: it stands for none, or a value cannot be.
    """
    path = Path(what)
    if path.suffix in (".yaml", ".yml") and _is_study(path):
        study = overrides.in_study(spec.load(path), given or {})
        return build.space_of(study), study.search
    return overrides.in_space(Space.load(what), given or {}), SearchSpec()


def configuration(path: Path) -> dict[str, Any]:
    """A configuration file, such as ``best_config.yaml``, by dotted names; its sections may be nested.

    Raises:
        InputError: the file is absent, is not YAML, or holds no setting.
    """
    content = _yaml(path, "a configuration such as best_config.yaml")
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no settings; must be a configuration such as best_config.yaml")
    if wrong := [key for key in content if not isinstance(key, str)]:
        raise InputError(f"{path}: got the name {wrong[0]!r}; names of settings must be words")
    return flat(content)


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted names: of ``optimizer: {lr: 0.01}`` the entry ``optimizer.lr: 0.01``."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": item for inner, item in flat(value).items()}
        else:
            found[name] = value
    return found


def _is_study(path: Path) -> bool:
    content = _yaml(path, "a study file, a space file, or the name of a shipped space")
    # A space has parameters of its own; anything else is read as a study, whose mistakes are named best there.
    return not (isinstance(content, dict) and "parameters" in content)


def _yaml(path: Path, wanted: str) -> Any:
    try:
        return documents.parse(path.read_text("utf-8"))[0]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); must be {wanted}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; must be {wanted}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML ({getattr(error, 'problem', 'cannot be parsed')})") from None
