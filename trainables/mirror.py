"""A trial whose node shares no disk with others: it trains in a folder of the node's own, and what it must not lose is
copied to object storage, whole checkpoint by whole checkpoint.

    <mirror>/<study>/trials/<n>/identity.json                    which trial this is of
                               /files/...                        images, the adapter, logs
                               /reports/<incarnation>.jsonl      as in `trainables.incarnations`; .claim: whose it is
                               /checkpoints/<incarnation>-<budget>/...   its manifest is the last object written

A checkpoint without a manifest there is none. Two starts that fetched the same listing take the same number for their
incarnation; object storage has no locks, so each number is claimed (``reports/<incarnation>.claim``) before anything
else is copied, and before each copying whoever finds that the claim is not his stops.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables import checkpoints, incarnations
from trainables.incarnations import Superseded
from trainables.mirror_store import MirrorAway, MirrorStore
from trainables.node_folders import make_own, node_folder
from trainables.protocol import TrialContext

IDENTITY = "identity.json"
_DONE, _CLAIM = ".mirrored", ".claim"
_NAME = re.compile(r"(\d+)-(\d+)/(.+)")


@dataclass(frozen=True)
class Mirror:
    """Where a study's trials are mirrored. `token` tells the study from another one of its name."""

    uri: str
    study: str
    token: str

    def of(self, number: int, params: Mapping[str, Any], seed: int) -> TrialMirror:
        """The mirror of one trial. `params` and `seed` tell it from another one of its number."""
        told = json.dumps([self.token, number, seed, dict(params)], sort_keys=True, default=str)
        return TrialMirror(self, number, hashlib.sha256(told.encode()).hexdigest())

    def here(self) -> Path:
        """The study's folder on this node."""
        return node_folder() / f"{self.study}-{self.token[:8]}"

    def prepared(self, trainer: Any, context: TrialContext) -> dict[str, Any]:
        """What `trainer.prepare` returns, done in a folder of this node; what it made is copied to the mirror, and its
        images are named as they will be below ``context.folder``.
        """
        here = self.here() / "base"
        make_own(here.parent)
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        found: dict[str, Any] = trainer.prepare(replace(context, folder=here))
        place = MirrorStore(self.uri)
        for path in sorted(path for path in here.rglob("*") if path.is_file()):
            place.put(path, f"{self.study}/base/{path.relative_to(here).as_posix()}")
        images = {
            label: context.folder / Path(path).relative_to(here) if Path(path).is_relative_to(here) else path
            for label, path in found["images"].items()
        }
        return {**found, "images": images}


class TrialMirror:
    """One trial's folder on this node, `folder`, and its copy in object storage."""

    def __init__(self, mirror: Mirror, number: int, identity: str) -> None:
        self._store, self._identity = MirrorStore(mirror.uri), identity
        self._place = f"{mirror.study}/trials/{number}"
        self._study_folder = mirror.here()
        self.folder = self._study_folder / "trials" / str(number)
        self._nonce, self._claimed = secrets.token_hex(16).encode(), 0
        self._sent: dict[str, tuple[int, int]] = {}

    # --- from the mirror ---------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Brings the trial's reports and newest checkpoints to this node, and forgets those of other trials."""
        make_own(self._study_folder)
        self._tidy_up()
        if self._identity_here() != self._identity:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _DONE).unlink(missing_ok=True)
        there = self._store.get_bytes(f"{self._place}/{IDENTITY}")
        if there is None or there.decode() != self._identity:
            self._store.delete(self._place)
            self._store.put_bytes(self._identity.encode(), f"{self._place}/{IDENTITY}")
        (self.folder / IDENTITY).write_text(self._identity)
        self._pull_reports()
        self._pull_checkpoints()

    def _pull_reports(self) -> None:
        for name, size in self._store.listing(f"{self._place}/reports").items():
            here = self.folder / incarnations.FOLDER / name
            if here.suffix == _CLAIM:  # its number is taken, by one that may never have reported
                here.parent.mkdir(exist_ok=True)
                here.with_suffix(".jsonl").touch()
            elif not here.is_file() or here.stat().st_size < size:
                self._store.get(f"{self._place}/reports/{name}", here)

    def _pull_checkpoints(self) -> None:
        for name, files in list(self._whole().items())[: checkpoints.KEPT]:
            incarnation, budget = (int(part) for part in name.split("-"))
            target = self.folder / checkpoints.FOLDER / f"{budget:08d}"
            if target.is_dir() and checkpoints.damage(target) is None and _incarnation(target) >= incarnation:
                continue
            scratch = target.with_name(f"{target.name}.0.part")
            shutil.rmtree(scratch, ignore_errors=True)
            for file in files:
                self._store.get(f"{self._place}/checkpoints/{name}/{file}", scratch / file)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)

    def _whole(self) -> dict[str, list[str]]:
        """The whole checkpoints there, newest first, each with its files."""
        found: dict[str, list[str]] = {}
        for key in self._store.listing(f"{self._place}/checkpoints"):
            if (match := _NAME.fullmatch(key)) is not None:
                found.setdefault(f"{match[1]}-{match[2]}", []).append(match[3])
        whole = [name for name, files in found.items() if checkpoints.MANIFEST in files]
        return {name: found[name] for name in sorted(whole, key=_order, reverse=True)}

    # --- to the mirror -----------------------------------------------------------------------------------------------

    def push(self, incarnation: int) -> None:
        """Copies what is new here, a checkpoint after the reports that led to it; then removes older checkpoints.

        Raises:
            Superseded: a later incarnation has begun elsewhere, or another one of this number; nothing is copied.
            MirrorAway: the storage does not answer, or the folder was tidied up here.
        """
        try:
            (self.folder / _DONE).unlink(missing_ok=True)  # until this is copied
            self._require_latest(incarnation)
            self._push(incarnation)
        except FileNotFoundError as error:
            raise MirrorAway(f"{self.folder}: is gone ({error.filename})") from error

    def _push(self, incarnation: int) -> None:
        for path in self._files():
            self._put(path, f"files/{path.relative_to(self.folder).as_posix()}")
        self._put(self.folder / incarnations.FOLDER / f"{incarnation:04d}.jsonl", f"reports/{incarnation:04d}.jsonl")
        for one in sorted((self.folder / checkpoints.FOLDER).glob("[0-9]" * 8)):
            if _incarnation(one) == incarnation:
                self._push_checkpoint(one, f"checkpoints/{incarnation:04d}-{one.name}")
        self._remove_older(incarnation)

    def _require_latest(self, incarnation: int) -> None:
        numbers = (int(name.partition(".")[0]) for name in self._store.listing(f"{self._place}/reports"))
        claim = f"{self._place}/reports/{incarnation:04d}{_CLAIM}"
        if self._claimed != incarnation and not self._store.has(claim):
            self._store.put_bytes(self._nonce, claim)
            self._claimed = incarnation
        if max(numbers, default=0) > incarnation or self._store.get_bytes(claim) != self._nonce:
            raise Superseded(f"another process goes on with {self._place}; this one was taken for lost")

    def _files(self) -> Iterator[Path]:
        apart = {checkpoints.FOLDER, incarnations.FOLDER, IDENTITY, _DONE}
        for path in sorted(self.folder.rglob("*")):
            is_scratch = path.name.endswith(".part") or path.name.startswith(".probe-")
            if path.is_file() and not is_scratch and path.relative_to(self.folder).parts[0] not in apart:
                yield path

    def _push_checkpoint(self, checkpoint: Path, key: str) -> None:
        manifest = checkpoint / checkpoints.MANIFEST
        for path in sorted(checkpoint.rglob("*")):
            if path.is_file() and path != manifest:
                self._put(path, f"{key}/{path.relative_to(checkpoint).as_posix()}")
        self._put(manifest, f"{key}/{checkpoints.MANIFEST}")

    def _put(self, path: Path, key: str) -> None:
        known = path.stat()
        version = known.st_size, known.st_mtime_ns
        if self._sent.get(key) != version:
            self._store.put(path, f"{self._place}/{key}")
            self._sent[key] = version

    def _remove_older(self, incarnation: int) -> None:
        mine = [name for name in self._whole() if _order(name)[0] <= incarnation]
        for name in mine[checkpoints.KEPT :]:
            # The manifest first: without it the checkpoint is none, however far its removal gets.
            self._store.drop(f"{self._place}/checkpoints/{name}/{checkpoints.MANIFEST}")
            self._store.delete(f"{self._place}/checkpoints/{name}")

    # --- this node ---------------------------------------------------------------------------------------------------

    def done(self) -> None:
        """The trial is not trained here any more; its folder may go when the next one begins."""
        if self.folder.is_dir():
            (self.folder / _DONE).touch()

    def _tidy_up(self) -> None:
        for marker in self.folder.parent.glob(f"*/{_DONE}"):
            if marker.parent != self.folder:
                shutil.rmtree(marker.parent, ignore_errors=True)

    def _identity_here(self) -> str | None:
        file = self.folder / IDENTITY
        return file.read_text() if file.is_file() else None


def told(result: Mapping[str, Any], there: Path) -> dict[str, Any]:
    """A result whose images are named as they will be below the trial's folder `there`, where the driver keeps them."""
    images = {label: str(_moved(Path(path), there)) for label, path in result.get("images", {}).items()}
    missed = {"missed": [told(one, there) for one in result["missed"]]} if "missed" in result else {}
    return {**result, **({"images": images} if "images" in result else {}), **missed}


def _moved(path: Path, there: Path) -> Path:
    """The same file below another trial folder: of ``.../trials/7/images/a.png`` the part behind ``trials/7``."""
    parts, tail = path.parts, there.parts[-2:]
    places = [index for index in range(len(parts) - 1) if parts[index : index + 2] == tail]
    return there.joinpath(*parts[places[-1] + 2 :]) if places else path


def _order(name: str) -> tuple[int, int]:
    incarnation, budget = name.split("-")
    return int(incarnation), int(budget)


def _incarnation(checkpoint: Path) -> int:
    try:
        return int(json.loads((checkpoint / checkpoints.MANIFEST).read_text())["incarnation"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
