"""A study whose nodes share no disk: what the driver brings from object storage, and what it keeps there.

<mirror>/<study>/study.db, study.yaml, all_trials.csv, report.html, figures/, best/, ...   the results folder
                /base/...                                                                  the untrained base's images
                /trials/<n>/...                                                            see `trainables.mirror`
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from trainables import checkpoints
from trainables.mirror import Mirror
from trainables.mirror_store import MirrorStore
from trainables.redaction import redacted
from tune_lora import drivers, exports, mirror_copies, storage_files, store
from tune_lora.errors import InputError, TuneLoraError
from tune_lora.mirror_driver import Fence
from tune_lora.records import StudyRecord
from tune_lora.spec import StudySpec
from tune_lora.storage import connected, patient

EVERY_SECONDS = 120.0
"""Between two copies of the study while it runs."""
_NOT_COPIED = frozenset({"trials", "logs", "lock", "base"})
_DATABASE = "study.db"
_NOT_BROUGHT = "not everything was brought from the mirror, and the results are made without it"

Say = Callable[[str], None]


def check(spec: StudySpec) -> None:
    """Raises InputError where the mirror cannot be written; does nothing for a study without one."""
    if spec.resources.mirror is not None:
        MirrorStore(spec.resources.mirror, patience=0.0).check()


def restore(spec: StudySpec, say: Say) -> None:
    """Brings the study's database from the mirror to a machine that has none, because the one it ran on is gone, or
    an older one, because another went on meanwhile. An older one is set aside.

    Raises:
        InputError: trials have ended in each that the other has not; or the copy is broken.
    """
    if spec.resources.mirror is None or spec.storage is not None:
        return
    place, key, scratch = MirrorStore(spec.resources.mirror), f"{spec.name}/{_DATABASE}", f"{_DATABASE}.fetched"
    if not place.has(key):
        return
    place.get(key, spec.folder / scratch)
    try:
        _take_newer(spec, spec.folder / scratch, f"{spec.resources.mirror}: {key}", say)
    finally:
        (spec.folder / scratch).unlink(missing_ok=True)


def _take_newer(spec: StudySpec, fetched: Path, there: str, say: Say) -> None:
    file = spec.folder / _DATABASE
    try:
        copy = mirror_copies.read(fetched, spec.name)
    except sqlite3.Error as error:
        raise InputError(f"{there}: cannot be read ({error}); must be a copy of the study, or not there") from None
    if not file.is_file():
        mirror_copies.put_in_place(fetched, file)
        say(f"{spec.folder} is empty: the study goes on from its copy in {spec.resources.mirror}")
        return
    held = _read_where_sound(file, spec.name)
    if held is None or copy is None:
        return
    mine, others = mirror_copies.ahead(held, copy)
    if mine > 0 and others > 0:
        raise InputError(
            f"{file}: has {mine} finished trials that its copy lacks, and the copy ({there}) {others} that it lacks; "
            "must be one of them: move the file away to go on from the copy, or delete the copy to go on from the file"
        )
    if others > 0:
        mirror_copies.set_aside(file)
        mirror_copies.put_in_place(fetched, file)
        say(f"{spec.folder}: its copy in {spec.resources.mirror} is newer by {others} trials; the study goes on there")


def _read_where_sound(file: Path, name: str) -> mirror_copies.Copy | None:
    try:
        return mirror_copies.read(file, name)
    except sqlite3.Error:
        return None  # whoever opens it says so


def of(study: optuna.Study, spec: StudySpec) -> Mirror | None:
    """The mirror of a study's trials; None where it has none."""
    if spec.resources.mirror is None:
        return None
    # Another study of this name may have left trials there.
    token = drivers.agreed(study, store.MIRROR, secrets.token_hex(8))
    return Mirror(spec.resources.mirror, spec.name, token)


def has_checkpoint(spec: StudySpec) -> Callable[[Path], bool]:
    """Whether a trial, given its folder below the results, could go on from a checkpoint."""
    if spec.resources.mirror is None:
        return lambda folder: checkpoints.newest(folder) is not None
    place = MirrorStore(spec.resources.mirror)

    def is_mirrored(folder: Path) -> bool:
        held = place.listing(f"{spec.name}/trials/{folder.name}/checkpoints")
        return any(key.endswith(checkpoints.MANIFEST) for key in held)

    return is_mirrored


def fetch(spec: StudySpec, record: StudyRecord, say: Say) -> None:
    """Brings the pictures of all trials, and all that the best one made, into the results folder.

    What cannot be brought is said: it is missing in the results, which can be made without it.
    """
    if spec.resources.mirror is not None:
        place = MirrorStore(spec.resources.mirror)
        _aloud(lambda: _fetch_trials(place, spec, record), say, _NOT_BROUGHT)


def _fetch_trials(place: MirrorStore, spec: StudySpec, record: StudyRecord) -> None:
    _fetch_all(place, f"{spec.name}/base", spec.folder / "base")  # what was away when it was made
    for image in {image for trial in record.trials for images in trial.images.values() for image in images.values()}:
        _fetch_picture(place, spec, image)
    for number in {trial.number for trial in (record.best, record.winner) if trial is not None}:
        below = f"trials/{number}"
        _fetch_all(place, f"{spec.name}/{below}/files", spec.folder / below)


def _fetch_picture(place: MirrorStore, spec: StudySpec, image: str) -> None:
    parts = Path(image).parts  # trials/<n>/...; a database must not choose where files land
    if parts[0] == "trials" and len(parts) > 2 and os.pardir not in parts and not (spec.folder / image).exists():
        _get_where_there(place, f"{spec.name}/trials/{parts[1]}/files/{'/'.join(parts[2:])}", spec.folder / image)


def picture_fetcher(spec: StudySpec) -> Callable[[str], None] | None:
    """Brings one picture of a trial, by its path relative to the results folder, while the study runs; None where there
    is no mirror. Raises StudyError where the mirror is away."""
    if spec.resources.mirror is None:
        return None
    place = MirrorStore(spec.resources.mirror)
    return lambda image: _fetch_picture(place, spec, image)


def fetch_base(spec: StudySpec, folder: Path, say: Say) -> None:
    """Brings what the preparation on a node made. What cannot be brought is said."""
    if spec.resources.mirror is not None:
        place = MirrorStore(spec.resources.mirror)
        _aloud(lambda: _fetch_all(place, f"{spec.name}/base", folder), say, _NOT_BROUGHT)


@contextmanager
def kept(study: optuna.Study, spec: StudySpec, say: Say, fence: Fence | None = None) -> Iterator[None]:
    """While the block runs, the study is copied to its mirror now and then; when it ends well, all results are.

    What cannot be copied is said, and tried again with the next copy. Nothing is once `fence` does not hold.
    """
    if spec.resources.mirror is None:
        yield
        return
    place, over = MirrorStore(spec.resources.mirror), threading.Event()
    if spec.storage is None:
        mirror_copies.begin(study)

    def copy(work: Callable[[], None]) -> None:
        def behind_the_fence() -> None:
            if fence is not None:
                fence.require()
            work()

        _aloud(behind_the_fence, say)

    def now_and_then() -> None:
        while not over.wait(EVERY_SECONDS):
            copy(lambda: _copy_study(place, study, spec))

    copying = threading.Thread(target=now_and_then, name="mirror", daemon=True)
    copying.start()
    try:
        yield
    finally:
        over.set()
        copying.join()
        copy(lambda: _copy_study(place, study, spec))
    copy(lambda: _copy_results(place, spec))


def _aloud(copy: Callable[[], None], say: Say, otherwise: str = "the mirror was not brought up to date") -> None:
    try:
        copy()
    except (TuneLoraError, OSError, sqlite3.Error, SQLAlchemyError) as error:
        say(f"{otherwise}: {redacted(str(error).splitlines()[0])}")


def _copy_study(place: MirrorStore, study: optuna.Study, spec: StudySpec) -> None:
    """The database, where it is a file, and the tables made from it, as they are at this moment."""
    storage = patient(study)
    assert storage is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder, held = Path(scratch), study
        if not storage_files.is_server(str(storage.url)):
            storage_files.backup(storage.engine, folder / _DATABASE)
            held = _of_copy(folder, study.study_name)
        else:
            held = optuna.load_study(study_name=study.study_name, storage=storage)
        exports.write_all(held, folder, held.user_attrs.get(store.SPEC) or spec.as_mapping())
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith(f"{_DATABASE}-"):
                place.put(path, f"{spec.name}/{path.name}")


def _of_copy(folder: Path, name: str) -> optuna.Study:
    """The study in a copied database, which may hold others."""
    url = store.sqlite_url(folder)
    if name not in store.study_names(url):
        raise InputError(f"study {name!r} is not in its storage any more")
    return optuna.load_study(study_name=name, storage=connected(url))


def _copy_results(place: MirrorStore, spec: StudySpec) -> None:
    for path in sorted(spec.folder.rglob("*")):
        inside = path.relative_to(spec.folder)
        if path.is_file() and inside.parts[0] not in _NOT_COPIED and not inside.parts[0].startswith(_DATABASE):
            place.put(path, f"{spec.name}/{inside.as_posix()}")


def _fetch_all(place: MirrorStore, prefix: str, folder: Path) -> None:
    for key, size in place.listing(prefix).items():
        here = folder / key
        if not here.is_file() or here.stat().st_size != size:
            place.get(f"{prefix}/{key}", here)


def _get_where_there(place: MirrorStore, key: str, target: Path) -> None:
    if place.has(key):
        place.get(key, target)
