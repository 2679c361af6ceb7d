"""Writes on stored trials, each event in one transaction.

Optuna's interface writes one value a transaction, with a query before each: a report of a trial is four of them, and
twenty make most of what a driver costs. Here what belongs together is written together, which is also why a trial that
ended has its cause. Tables and encodings are Optuna's own (`optuna.storages._rdb.models`); storages that are no SQL
database are written through Optuna's interface.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optuna
import sqlalchemy as sql
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tune_lora import storage_files
from tune_lora.storage import PatientStorage, TakenOver, made_already

T = TypeVar("T")
_INSERTS: Mapping[str, Callable[[sql.Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True)
class Entry:
    """What one event writes on a trial: attributes by name, scores by budget, and where it ended how."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    values: Sequence[float] | None = None

    def __bool__(self) -> bool:
        return bool(self.attributes or self.scores or self.state)


def create(
    study: optuna.Study,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    attributes: Mapping[str, Any],
) -> FrozenTrial:
    """A new RUNNING trial with all it is known by."""
    template = create_trial(
        state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions), user_attrs=dict(attributes)
    )
    database = _database(study._storage)
    if database is None:
        identity = study._storage.create_new_trial(study._study_id, template_trial=template)
        return study._storage.get_trial(identity)
    template.datetime_start = dt.datetime.now()  # noqa: DTZ005 - Optuna keeps local times without a zone
    attempts = 0

    def insert(connection: sql.Connection) -> tuple[int, int]:
        nonlocal attempts
        attempts += 1
        return _insert(connection, database, study._study_id, template, again=attempts > 1)

    template._trial_id, template.number = _transact(database, insert)
    storage_files.sync_soon(database.engine)
    return template


def write(storage: BaseStorage, trial_id: int, entry: Entry) -> bool:
    """Writes all of an entry; returns False where nothing was, because another driver has taken the trial over.

    Raises:
        UpdateFinishedTrialError: the trial has ended already, otherwise than the entry says.
    """
    database = _database(storage)
    if database is None:
        _write_one_by_one(storage, trial_id, entry)
        return True
    try:
        _transact(database, lambda connection: _write(connection, database, trial_id, entry))
    except TakenOver:
        return False
    if entry.state is not None:
        storage_files.sync_soon(database.engine)
    return True


def _database(storage: BaseStorage) -> PatientStorage | None:
    """The SQL storage below Optuna's cache, where its tables can be written to in this way."""
    inner: Any = getattr(storage, "_backend", storage)
    if not isinstance(inner, PatientStorage) or inner.engine.dialect.name not in _INSERTS:
        return None
    return inner


def _transact(database: PatientStorage, work: Callable[[sql.Connection], T]) -> T:
    """What `work` returns, done in one transaction; done again where the answer was lost."""

    def ask() -> T:
        # No session of the object mapper: that alone costs a third of the whole.
        with database.engine.begin() as connection:
            return work(connection)

    return database.until_answered(ask)


def _table(model: type[models.BaseModel]) -> sql.Table:
    found = sql.inspect(model).local_table
    assert isinstance(found, sql.Table)  # declared as the wider FromClause
    return found


def _insert_or_replace(
    model: type[models.BaseModel], keys: tuple[str, ...], values: tuple[str, ...]
) -> Mapping[str, Any]:
    """The statement by dialect. Built once: that costs as much as the database does."""
    made = {}
    for dialect, insert in _INSERTS.items():
        statement = insert(_table(model))
        made[dialect] = statement.on_conflict_do_update(
            index_elements=list(keys), set_={name: statement.excluded[name] for name in values}
        )
    return made


_TRIALS, _STUDIES = _table(models.TrialModel), _table(models.StudyModel)
_LOCK_STUDY = sql.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == sql.bindparam("study")).with_for_update()
_COUNT_EARLIER = sql.select(sql.func.count()).where(
    _TRIALS.c.study_id == sql.bindparam("study"), _TRIALS.c.trial_id < sql.bindparam("trial")
)
_STATE = sql.select(_TRIALS.c.state).where(_TRIALS.c.trial_id == sql.bindparam("trial")).with_for_update()
_THIS = _TRIALS.update().where(_TRIALS.c.trial_id == sql.bindparam("trial"))
_SET_NUMBER = _THIS.values(number=sql.bindparam("number_"))
_SET_ENDED = _THIS.values(state=sql.bindparam("state_"), datetime_complete=sql.bindparam("at"))
_SET_ATTRIBUTES = _insert_or_replace(models.TrialUserAttributeModel, ("trial_id", "key"), ("value_json",))
_SET_SCORES = _insert_or_replace(
    models.TrialIntermediateValueModel, ("trial_id", "step"), ("intermediate_value", "intermediate_value_type")
)
_SET_VALUES = _insert_or_replace(models.TrialValueModel, ("trial_id", "objective"), ("value", "value_type"))


def _insert(
    connection: sql.Connection, database: PatientStorage, study_id: int, trial: FrozenTrial, *, again: bool
) -> tuple[int, int]:
    """Id and number of the trial. Numbers are given as Optuna gives them: by counting, while the study is locked."""
    connection.execute(_LOCK_STUDY, {"study": study_id})
    if again and (made := made_already(Session(connection), study_id, trial)) is not None:
        return int(made.trial_id), int(made.number)
    if database.guard is not None:
        database.guard.admit(Session(connection), study_id, trial)
    begun = {"study_id": study_id, "state": trial.state, "datetime_start": _now()}
    added = connection.execute(_TRIALS.insert(), begun).inserted_primary_key
    assert added is not None  # of one row there is one
    trial_id = int(added[0])
    number = int(connection.execute(_COUNT_EARLIER, {"study": study_id, "trial": trial_id}).scalar_one())
    connection.execute(_SET_NUMBER, {"trial": trial_id, "number_": number})
    for model, rows in (
        (models.TrialParamModel, _params(trial_id, trial)),
        (models.TrialUserAttributeModel, _attributes(trial_id, trial.user_attrs)),
    ):
        if rows:
            connection.execute(_table(model).insert(), rows)
    return trial_id, number


def _write(connection: sql.Connection, database: PatientStorage, trial_id: int, entry: Entry) -> None:
    state = connection.execute(_STATE, {"trial": trial_id}).scalar_one()
    if database.guard is not None:
        database.require_owner(Session(connection), trial_id)  # whoever has it by now may have ended it already
    if state.is_finished():
        if state == entry.state:  # told before, and the answer was lost
            return
        raise UpdateFinishedTrialError(f"the trial with id {trial_id} has ended ({state.name}) and can not be updated")
    for statement, rows in (
        (_SET_ATTRIBUTES, _attributes(trial_id, entry.attributes)),
        (_SET_SCORES, _scores(trial_id, entry.scores)),
        (_SET_VALUES, _values(trial_id, entry.values or ())),
    ):
        if rows:
            connection.execute(statement[connection.dialect.name], rows)
    if entry.state is not None:
        connection.execute(_SET_ENDED, {"trial": trial_id, "state_": entry.state, "at": _now()})


def _now() -> dt.datetime:
    """As Optuna's tables keep time: UTC, without saying so."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def _params(trial_id: int, trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _attributes(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _scores(trial_id: int, scores: Mapping[int, float]) -> list[dict[str, Any]]:
    represent = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    stored = {step: represent(score) for step, score in scores.items()}
    return [
        {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        for step, (value, kind) in stored.items()
    ]


def _values(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    stored = enumerate(map(models.TrialValueModel.value_to_stored_repr, values))
    return [
        {"trial_id": trial_id, "objective": index, "value": value, "value_type": kind}
        for index, (value, kind) in stored
    ]


def _write_one_by_one(storage: BaseStorage, trial_id: int, entry: Entry) -> None:
    for key, value in entry.attributes.items():
        storage.set_trial_user_attr(trial_id, key, value)
    for step, score in entry.scores.items():
        storage.set_trial_intermediate_value(trial_id, step, score)
    if entry.state is not None:
        storage.set_trial_state_values(trial_id, entry.state, entry.values)
