"""Which of the files that a study names go along to a cluster, and where they are there."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import tomllib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy

from cluster import job as on_cluster
from cluster import package
from cluster.package import Item
from trainables import user_module
from trainables.classification import data as examples
from trainables.classification.source import DataSource
from tune_lora import storage_files
from tune_lora.classifier_spec import DEMO_SHAPES
from tune_lora.dataset_spec import DEMO_CHARACTER
from tune_lora.errors import InputError
from tune_lora.text_spec import DEMO_LOGBOOK


def is_known(path: str) -> bool:
    """Whether data of this name can be found on the cluster."""
    return Path(path).is_absolute() or path in (DEMO_CHARACTER, DEMO_SHAPES, DEMO_LOGBOOK)


@dataclass
class Along:
    """What goes along, gathered while the paths of a study are gone through."""

    beside: Path
    shared: Sequence[Path]
    listings: frozenset[str] = frozenset()
    """Those among the paths that may be lists of images."""
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    """What stays here of all that goes along, a line each."""
    known: dict[Path, str] = field(default_factory=dict)

    def place(self, named: str) -> str:
        """Where a path is on the cluster."""
        path = Path(named).expanduser()
        if not path.is_absolute():  # one that exists was made absolute when the study was read; this is a name
            return named
        if self._is_shared(path):
            return str(path)
        if not path.exists():
            self.notes.append(f"{path} is not on this machine: all nodes must see it there")
            return str(path)
        whole = _whole(path, named in self.listings)
        if whole not in self.known:
            items = package.of_data(self._settled(whole))
            self.known[whole] = digest = package.digest(items)
            self.items += package.below(f"{on_cluster.INPUTS}/{digest}", items)
            self._say_what_stays(whole)
        inside = path.relative_to(whole) if whole.is_dir() else Path()
        return str(self.beside / self.known[whole] / whole.name / inside)

    def place_code(self, target: str | None) -> str | None:
        """The same for a trainer of the user's own, with the code beside it."""
        if target is None:
            return None
        module, function = user_module.split(target)
        path = Path(module)
        if not path.is_file():
            self.notes.append(f"trainable: the module {module} must be installed on all nodes")
            return target
        if self._is_shared(path):
            return target
        self.items += package.below(f"{on_cluster.INPUTS}/{on_cluster.CODE}", package.of_code(path.parent))
        return f"{self.beside / on_cluster.CODE / path.name}:{function}"

    def _settled(self, path: Path) -> Path:
        """The path; of a study's database that is written just now, or was when its driver died, a copy that is whole
        without the journal beside it. The copy is there for as long as this object is.

        Raises:
            InputError: it cannot be copied.
        """
        if not any(Path(f"{path}-{journal}").is_file() for journal in ("wal", "journal")):
            return path
        folder = tempfile.mkdtemp(prefix="tune-lora-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder) / path.name
        engine = sqlalchemy.create_engine(url := f"sqlite:///{path}", **storage_files.engine_options(url))
        try:
            storage_files.backup(engine, copy)
        except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise InputError(f"{path}: cannot be copied ({error}); must be the database of a study") from None
        finally:
            engine.dispose()
        return copy

    def _say_what_stays(self, path: Path) -> None:
        if found := package.withheld(path):
            more = f" and {len(found) - package.SHOWN} more" if len(found) > package.SHOWN else ""
            named = ", ".join(str(file.relative_to(path)) for file in found[: package.SHOWN])
            self.withheld.append(f"not sent of {path}, for names that secrets have: {named}{more}")

    def _is_shared(self, path: Path) -> bool:
        found = any(path.resolve().is_relative_to(folder.expanduser().resolve()) for folder in self.shared)
        if found and not path.exists():
            self.notes.append(f"{path} is not on this machine: all nodes must see it there")
        return found


def _whole(path: Path, may_list_images: bool) -> Path:
    """What must go along so that a path is of use: of a listing of images their folder, of a study its database."""
    if path.is_dir():
        database = path / "study.db"
        return database if database.is_file() else path
    if path.suffix == ".toml":
        _check_folders_inside(path)
        return path.parent
    return path.parent if may_list_images and _lists_images(path) else path


def _lists_images(path: Path) -> bool:
    return examples.kind_of(DataSource(path)) == "image"


def _check_folders_inside(path: Path) -> None:
    """Refuses a dataset TOML whose images lie elsewhere: they would not go along."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return  # the study's own check says so
    for folder in _values(document, "image_dir"):
        if not (path.parent / folder).resolve().is_relative_to(path.parent.resolve()):
            raise InputError(f"{path}: image_dir {folder!r} lies elsewhere; must be in {path.parent}, or use --shared")


def _values(document: Any, key: str) -> Iterator[str]:
    if isinstance(document, Mapping):
        yield from (str(value) for name, value in document.items() if name == key)
    inner = document.values() if isinstance(document, Mapping) else document if isinstance(document, list) else ()
    for value in inner:
        yield from _values(value, key)
