"""How a study's storage is opened and kept: locks and lost connections are waited for, and what was written although
its answer was lost is not written twice.

Optuna's own storage does the work. Each call of it that meets a passing fault is made again after a growing pause,
until the patience is over. Calls that are no upserts are made so that a repetition changes nothing: a trial is known by
its Tune id, and a trial that has ended already as it is told to has been told.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from trainables.redaction import redacted
from tune_lora import storage_faults, storage_files, termination
from tune_lora.errors import StudyError
from tune_lora.storage_url import with_driver, written

PATIENCE_SECONDS = 600.0
"""How long a storage that does not answer is waited for, unless a study says otherwise."""
TUNE_ID = "tune_trial_id"
"""The user attribute by which a trial is known again whose creation was not answered."""
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.05, 10.0, 1.7
_QUIET_SECONDS = 1.0  # a fault that is over by then is worth no word
_MOMENT_SECONDS = 0.5
_ENDING_SECONDS = 5.0  # that are waited for a storage by a program that was told to end, before it is killed
_OPENINGS = 8  # drivers that make the tables of an empty database at the same time trip over each other

P = ParamSpec("P")
T = TypeVar("T")


class Listener(Protocol):
    """Who is told that the storage is waited for."""

    def away(self, line: str) -> None:
        """It does not answer; must not use the storage."""
        ...

    def back(self, line: str) -> None:
        """It answers again; may use it."""
        ...


class Guard(Protocol):
    """Who may write, where several drivers share a study. Both are asked inside the transaction that writes."""

    def admit(self, session: Session, study_id: int, trial: FrozenTrial) -> None:
        """Raises where the trial must not be begun; the study's row is locked."""
        ...

    def owns(self, session: Session, trial_id: int) -> bool:
        """Whether the trial is this driver's to write on."""
        ...


class TakenOver(Exception):
    """The trial is another driver's by now."""


def _sleep(seconds: float, is_ending: Callable[[], bool]) -> None:
    """Sleeps, no longer than a moment once the program was told to end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _MOMENT_SECONDS))
        if is_ending():
            return


def _patient(
    plain: Callable[Concatenate[PatientStorage, P], T],
) -> Callable[Concatenate[PatientStorage, P], T]:
    """A call that is made until it is answered. What it says of a trial that was taken over is dropped."""

    def asked(self: PatientStorage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.until_answered(lambda: plain(self, *args, **kwargs))

    return asked


def _told(plain: Callable[Concatenate[PatientStorage, P], None]) -> Callable[Concatenate[PatientStorage, P], None]:
    """A patient write on a trial. What is said of a trial that another driver has taken over is dropped."""
    patient = _patient(plain)

    def told(self: PatientStorage, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            patient(self, *args, **kwargs)
        except TakenOver:
            return

    return told


class PatientStorage(RDBStorage):
    """Optuna's storage that waits out locks and lost connections for `patience` seconds a time.

    `listener` hears of waits; `guard` says who may write where several drivers share the study.

    Raises:
        StudyError: from every call, when the patience is over or the fault is none that passes.
    """

    listener: Listener | None = None
    guard: Guard | None = None

    def __init__(self, url: str, *, patience: float = PATIENCE_SECONDS, **options: Any) -> None:
        self.patience = patience
        self._shown = written(url)
        self._gave_up: str | None = None
        self._local = threading.local()
        super().__init__(url, **options)

    # --- asking again ------------------------------------------------------------------------------------------------

    def until_answered(self, ask: Callable[[], T]) -> T:
        """The answer of `ask`, which is called again while it fails in a way that passes.

        A program that was told to end does not wait for long.
        """
        if self._gave_up is not None:  # once is enough: everybody who asks would wait as long again
            raise StudyError(self._gave_up)
        began = time.monotonic()
        try:
            return ask()
        except (StorageInternalError, SQLAlchemyError) as error:
            first = error
        with termination.overheard() as is_ending:
            return self._asked_again(ask, first, began, is_ending)

    def _asked_again(self, ask: Callable[[], T], error: Exception, began: float, is_ending: Callable[[], bool]) -> T:
        pause, said = _FIRST_PAUSE, False
        while True:
            away = time.monotonic() - began
            self._require_hope(error, away, is_ending=is_ending())
            if away >= _QUIET_SECONDS and not said:
                said = True
                self._say_away(error)
            _sleep(pause * random.uniform(0.75, 1.25), is_ending)
            pause = min(_LONGEST_PAUSE, pause * _GROWTH)
            try:
                answer = ask()
            except (StorageInternalError, SQLAlchemyError) as again:
                error = again
            else:
                if said and self.listener is not None:
                    self.listener.back(f"the storage answers again after {time.monotonic() - began:.0f} s")
                return answer

    def require_owner(self, session: Session, trial_id: int) -> None:
        """Raises TakenOver where the trial is another driver's by now."""
        if self.guard is not None and not self.guard.owns(session, trial_id):
            raise TakenOver

    def _require_hope(self, error: Exception, away: float, *, is_ending: bool) -> None:
        reason = redacted(storage_faults.reason(error))
        if not storage_faults.passes(error):
            self._gave_up = f"storage {self._shown}: {reason}; what is stored stays, and the same command goes on"
        elif away >= self.patience:
            self._gave_up = (
                f"storage {self._shown}: has not answered for {away / 60:.1f} min ({reason}); "
                "the same command goes on with the study once it does"
            )
        elif is_ending and away >= _ENDING_SECONDS:
            self._gave_up = (
                f"storage {self._shown}: does not answer ({reason}), and the run was told to end; "
                "the same command goes on with the study once it does"
            )
        if self._gave_up is not None:
            raise StudyError(self._gave_up) from error

    def _say_away(self, error: Exception) -> None:
        if self.listener is not None:
            reason = redacted(storage_faults.reason(error))
            self.listener.away(f"the storage does not answer ({reason}); waiting for up to {self.patience / 60:g} min")

    # --- writes that must not happen twice ---------------------------------------------------------------------------

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        plain = super()._create_new_trial
        self._local.creating = True
        try:
            made = self.until_answered(lambda: plain(study_id, template_trial))
        finally:
            self._local.creating = False
        storage_files.sync(self.engine)
        return made

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        # The study's row is locked here, so what is looked at holds until the trial is written.
        if template_trial is not None:
            if (made := made_already(session, study_id, template_trial)) is not None:
                return made
            if self.guard is not None:
                self.guard.admit(session, study_id, template_trial)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """Raises where the trial has ended, or is not this driver's."""
        super().check_trial_is_updatable(trial_id, trial_state)
        if not getattr(self._local, "creating", False):
            self.require_owner(self.scoped_session(), trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Optuna's; one whose first answer was lost is not told a second time."""
        plain, asked = super().set_trial_state_values, 0

        def tell() -> bool:
            nonlocal asked
            asked += 1
            return plain(trial_id, state, values)

        try:
            done = self.until_answered(tell)
        except UpdateFinishedTrialError:
            if asked == 1 or not self._stands(trial_id, state, values):
                raise
            done = True
        except TakenOver:
            return False
        storage_files.sync(self.engine)
        return done

    def _stands(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        """Whether the trial is stored as it was to be told."""
        stored = self.get_trial(trial_id)
        return stored.state == state and (values is None or stored.values == list(values))

    # --- all other calls, which may be made any number of times ------------------------------------------------------

    create_new_study = _patient(RDBStorage.create_new_study)
    delete_study = _patient(RDBStorage.delete_study)
    get_all_studies = _patient(RDBStorage.get_all_studies)
    get_study_id_from_name = _patient(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _patient(RDBStorage.get_study_name_from_id)
    get_study_directions = _patient(RDBStorage.get_study_directions)
    get_study_user_attrs = _patient(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _patient(RDBStorage.get_study_system_attrs)
    get_trial = _patient(RDBStorage.get_trial)
    get_trial_id_from_study_id_trial_number = _patient(RDBStorage.get_trial_id_from_study_id_trial_number)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = _patient(RDBStorage.set_study_system_attr)
    set_trial_user_attr = _told(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _told(RDBStorage.set_trial_system_attr)
    set_trial_intermediate_value = _told(RDBStorage.set_trial_intermediate_value)
    _set_trial_param = _told(RDBStorage._set_trial_param)
    _get_trials = _patient(RDBStorage._get_trials)
    _get_best_trial_id = _patient(RDBStorage._get_best_trial_id)


def made_already(session: Session, study_id: int, trial: FrozenTrial) -> models.TrialModel | None:
    """The stored trial with this one's Tune id, whose creation was done and not answered; None: there is none."""
    tune_id = trial.user_attrs.get(TUNE_ID)
    if tune_id is None:
        return None
    attributes, trials = models.TrialUserAttributeModel, models.TrialModel
    query = session.query(trials).join(attributes, attributes.trial_id == trials.trial_id)
    query = query.filter(trials.study_id == study_id, attributes.key == TUNE_ID)
    found: models.TrialModel | None = query.filter(attributes.value_json == json.dumps(tune_id)).first()
    return found


# --- opening and closing ---------------------------------------------------------------------------------------------


def connected(url: str, *, patience: float = PATIENCE_SECONDS, drives: bool = False) -> PatientStorage:
    """The storage at a URL with its password; its tables are made where there are none.

    `drives`: this process writes a study into it, so that the journal of a SQLite file may be chosen. A server that
    refuses, or is not there, is not waited for: at this point it is most likely a mistake.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError: it cannot be opened.
    """
    url = with_driver(url)
    options = storage_files.engine_options(url, drives=drives)
    for attempt in range(_OPENINGS):
        try:
            return PatientStorage(url, patience=patience, engine_kwargs=dict(options))
        except (SQLAlchemyError, StorageInternalError) as error:
            made_by_others = isinstance(error, IntegrityError | ProgrammingError)
            if attempt == _OPENINGS - 1 or not (made_by_others or storage_faults.passes(error, opened=False)):
                raise
            time.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")


def patient(study: optuna.Study) -> PatientStorage | None:
    """The storage below a study's cache, where `connected` made it."""
    backend = getattr(study._storage, "_backend", None)
    return backend if isinstance(backend, PatientStorage) else None


@contextmanager
def listening(study: optuna.Study, listener: Listener) -> Iterator[None]:
    """For the block, `listener` hears when the study's storage is waited for; afterwards the storage is closed."""
    backend = patient(study)
    if backend is None:
        yield
        return
    backend.listener = listener
    try:
        yield
    finally:
        backend.listener = None
        storage_files.close(backend.engine)
