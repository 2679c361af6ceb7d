"""Several drivers on one study in a database server: who may begin a trial, and who goes on with those of a dead one.

Every decision that two drivers could take at the same time is taken in a transaction that has locked the study's row:
how many trials there are, whether a reference is begun, whose a trial is. A driver that was taken for dead and is not
finds that what it writes on its former trials is dropped.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
import sqlalchemy as sql
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from trainables.protocol import Cause
from tune_lora import leases, storage_files, store
from tune_lora.leases import RENEW_SECONDS, Lease, Watch
from tune_lora.storage import PatientStorage, patient

LOOK_SECONDS = 1.0
"""Between two looks at what other drivers do."""
_ATTRIBUTES, _TRIALS, _OF_STUDY = models.TrialUserAttributeModel, models.TrialModel, models.StudyUserAttributeModel


class NotAdmitted(Exception):
    """The trial must not be begun: another driver was faster, or the study has all its trials."""


class Driver:
    """This process among the drivers of a study. Use `joined`.

    `name` stands on the trials that are its own (`store.DRIVER`). `total` is how many trials the study may have, not
    counting those that the infrastructure ended; None: nobody has said yet.
    """

    def __init__(self, study: optuna.Study, storage: PatientStorage) -> None:
        self.name = f"{os.uname().nodename}-{secrets.token_hex(4)}"
        self.total: int | None = None
        self._study_id, self._storage = study._study_id, storage
        self._lease = leases.mine(storage.patience)
        here = self._lease.machine
        self._watch = Watch(lambda lease: leases.has_ended(lease, here))
        self._watching = threading.Lock()
        self._known: dict[str, Lease] = {}
        self._stored_now: float | None = None
        self._gone: frozenset[str] = frozenset()
        self._next_look = 0.0
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew_for_ever, name="lease", daemon=True)

    # --- the lease ---------------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Begins to hold a lease."""
        self._storage.until_answered(self._renew)
        self.look()
        self._renewing.start()

    def leave(self) -> None:
        """Gives the lease up, so that others may take at once what this driver left."""
        self._over.set()
        self._renewing.join()
        gone = sql.delete(_OF_STUDY).where(_OF_STUDY.study_id == self._study_id, _OF_STUDY.key == self._key(self.name))

        try:
            with self._storage.engine.begin() as connection:
                connection.execute(gone)
        except SQLAlchemyError:  # it runs out by itself
            return

    def _renew_for_ever(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                self._renew()
                self._observe(*self._read())  # also while nobody asks: trials may take hours
            except SQLAlchemyError:  # the next time; the lease lasts for several
                continue

    def _renew(self) -> None:
        with self._storage.scoped_session.session_factory.begin() as session:
            self._lease = replace(self._lease, count=self._lease.count + 1, at=_clock(session))
            text = json.dumps(self._lease.as_mapping())
            where = (_OF_STUDY.study_id == self._study_id, _OF_STUDY.key == self._key(self.name))
            held = session.execute(sql.select(_OF_STUDY.key).where(*where)).first()
            if held is not None:
                session.execute(sql.update(_OF_STUDY).where(*where).values(value_json=text))
            else:
                session.add(_OF_STUDY(study_id=self._study_id, key=self._key(self.name), value_json=text))

    @staticmethod
    def _key(name: str) -> str:
        return f"{store.DRIVER_PREFIX}{name}"

    # --- the others --------------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time for another look at the others; looks, where it is."""
        if time.monotonic() < self._next_look:
            return False
        self.look()
        return True

    def look(self) -> None:
        """Finds out who drives the study and who is gone."""
        self._observe(*self._storage.until_answered(self._read))
        self._next_look = time.monotonic() + LOOK_SECONDS

    def _observe(self, known: dict[str, Lease], stored_now: float | None) -> None:
        others = {name: lease for name, lease in known.items() if name != self.name}
        with self._watching:
            self._known, self._stored_now = known, stored_now
            self._gone = self._watch.look(others, time.monotonic(), stored_now)

    def _read(self) -> tuple[dict[str, Lease], float | None]:
        with self._storage.scoped_session.session_factory.begin() as session:
            return self._leases(session), _clock(session)

    def _leases(self, session: Session) -> dict[str, Lease]:
        held = sql.select(_OF_STUDY.key, _OF_STUDY.value_json).where(
            _OF_STUDY.study_id == self._study_id, _OF_STUDY.key.startswith(store.DRIVER_PREFIX, autoescape=True)
        )
        return {
            key.removeprefix(store.DRIVER_PREFIX): Lease.from_mapping(json.loads(text))
            for key, text in session.execute(held)
        }

    @property
    def others(self) -> list[str]:
        """Drivers that are at work beside this one."""
        silent = {name for name, lease in self._known.items() if not leases.is_at_work(lease, self._stored_now)}
        return sorted(set(self._known) - self._gone - silent - {self.name})

    def seed(self, seed: int) -> int:
        """The seed of this driver's sampler: the study's, unless others draw from that already."""
        return zlib.crc32(f"{seed}:{self.name}".encode()) if self.others else seed

    # --- decisions in a transaction ----------------------------------------------------------------------------------

    def take(self, trial: FrozenTrial) -> bool:
        """Makes a running trial of a driver that is gone this one's; of several that try, one succeeds."""
        owner = trial.user_attrs.get(store.DRIVER)
        if not leases.may_take(owner, self.name, self._known, self._gone):
            return False
        taken = self._storage.until_answered(lambda: self._take(trial._trial_id, owner))
        if taken:
            trial.user_attrs[store.DRIVER] = self.name
        return taken

    def _take(self, trial_id: int, owner: str | None) -> bool:
        with self._storage.scoped_session.session_factory.begin() as session:
            self._lock(session)
            # Locked as well: whoever writes on it now is waited for.
            held = sql.select(_TRIALS.state).where(_TRIALS.trial_id == trial_id).with_for_update()
            state = session.execute(held).scalar_one()
            now = self._owner(session, trial_id)
            if now == self.name:  # taken by the attempt before, whose answer was lost
                return True
            renewed = owner is not None and self._leases(session).get(owner) not in (None, self._known.get(owner))
            if state != TrialState.RUNNING or now != owner or renewed:
                return False
            where = (_ATTRIBUTES.trial_id == trial_id, _ATTRIBUTES.key == store.DRIVER)
            if now is None:
                session.add(_ATTRIBUTES(trial_id=trial_id, key=store.DRIVER, value_json=json.dumps(self.name)))
            else:
                session.execute(sql.update(_ATTRIBUTES).where(*where).values(value_json=json.dumps(self.name)))
            return True

    def admit(self, session: Session, study_id: int, trial: FrozenTrial) -> None:
        """Raises NotAdmitted where the study has all its trials, or has one of this origin. Its row is locked."""
        if self.total is not None and self._begun(session, study_id) >= self.total:
            raise NotAdmitted("all trials are begun")
        origin = trial.user_attrs.get(store.PROVENANCE)
        if origin not in (None, "sampler") and self._has(session, study_id, store.PROVENANCE, origin):
            raise NotAdmitted(f"{origin} is begun")
        if self.draws_each_once and self._has(session, study_id, store.CONFIG, trial.user_attrs.get(store.CONFIG)):
            raise NotAdmitted("this point of the grid is begun")

    draws_each_once = False
    """Whether no configuration may be tried twice: a grid."""

    def owns(self, session: Session, trial_id: int) -> bool:
        """Whether a trial is this driver's."""
        return self._owner(session, trial_id) == self.name

    def _lock(self, session: Session) -> None:
        models.StudyModel.find_or_raise_by_id(self._study_id, session, for_update=True)

    def _owner(self, session: Session, trial_id: int) -> str | None:
        held = sql.select(_ATTRIBUTES.value_json).where(
            _ATTRIBUTES.trial_id == trial_id, _ATTRIBUTES.key == store.DRIVER
        )
        found = session.execute(held).scalar_one_or_none()
        return None if found is None else str(json.loads(found))

    def _begun(self, session: Session, study_id: int) -> int:
        """Trials that count or may come to: all that run or ended, but for those that the infrastructure ended.

        What somebody else enqueued (WAITING) is begun by nobody here.
        """
        lost = sql.exists().where(
            _ATTRIBUTES.trial_id == _TRIALS.trial_id,
            _ATTRIBUTES.key == store.CAUSE,
            _ATTRIBUTES.value_json == json.dumps(Cause.INFRASTRUCTURE.value),
        )
        counting = sql.select(sql.func.count()).where(
            _TRIALS.study_id == study_id,
            _TRIALS.state != TrialState.WAITING,
            sql.or_(_TRIALS.state != TrialState.FAIL, ~lost),
        )
        return int(session.execute(counting).scalar_one())

    def _has(self, session: Session, study_id: int, key: str, value: Any) -> bool:
        query = sql.select(_TRIALS.trial_id).join(_ATTRIBUTES, _ATTRIBUTES.trial_id == _TRIALS.trial_id)
        query = query.where(_TRIALS.study_id == study_id, _ATTRIBUTES.key == key)
        found = session.execute(query.where(_ATTRIBUTES.value_json == json.dumps(value)).limit(1))
        return found.first() is not None


def _clock(session: Session) -> float | None:
    """The database's clock in seconds, where all its clients see the same."""
    if session.connection().dialect.name != "postgresql":
        return None
    return float(session.execute(sql.select(sql.extract("epoch", sql.func.clock_timestamp()))).scalar_one())


def agreed(study: optuna.Study, key: str, value: str) -> str:
    """The study's attribute, which is `value` where no driver was earlier: all get the same answer."""
    storage = patient(study)
    if storage is None:
        return str(study.user_attrs.get(key, value))

    def ask() -> str:
        with storage.scoped_session.session_factory.begin() as session:
            models.StudyModel.find_or_raise_by_id(study._study_id, session, for_update=True)
            where = (_OF_STUDY.study_id == study._study_id, _OF_STUDY.key == key)
            held = session.execute(sql.select(_OF_STUDY.value_json).where(*where)).scalar_one_or_none()
            if held is None:
                session.add(_OF_STUDY(study_id=study._study_id, key=key, value_json=json.dumps(value)))
            return value if held is None else str(json.loads(held))

    return storage.until_answered(ask)


def of(study: optuna.Study) -> Driver | None:
    """What this process is among a study's drivers; None where there is no other, or outside of `joined`."""
    storage = patient(study)
    return storage.guard if storage is not None and isinstance(storage.guard, Driver) else None


@contextmanager
def joined(study: optuna.Study) -> Iterator[Driver | None]:
    """This process as one of a study's drivers, for the block; None where the storage has room for one only, which a
    lock sees to.
    """
    storage = patient(study)
    if storage is None or not storage_files.is_server(str(storage.url)):
        yield None
        return
    driver = Driver(study, storage)
    driver.join()
    storage.guard = driver
    try:
        yield driver
    finally:
        storage.guard = None
        driver.leave()
