"""A study as optuna-dashboard sees it: as it is stored at each moment, with notes and pictures written nowhere.

The dashboard would keep notes and the list of pictures among the study's system attributes, and lets whoever looks
delete, rename and edit. None of that belongs into a study that a driver may be writing just now, so what it asks is
answered out of the study's storage and a few attributes in memory, and whatever would write is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

REFUSED = "this dashboard only looks: nothing of the study is changed"


class ReadOnlyError(RuntimeError):
    """Something would have been written."""


class Looking(BaseStorage):
    """One study of a storage, to be read. `more` are system attributes of it, asked for each time."""

    def __init__(self, study: optuna.Study, more: Callable[[], Mapping[str, Any]]) -> None:
        self._inner, self._study_id, self._more = study._storage, study._study_id, more

    # --- the study ---------------------------------------------------------------------------------------------------

    def get_all_studies(self) -> list[FrozenStudy]:
        """The one."""
        found = [one for one in self._inner.get_all_studies() if one._study_id == self._study_id]
        shown = [copy.copy(one) for one in found]
        for one in shown:
            one.system_attrs = {**one.system_attrs, **self._more()}
        return shown

    def get_study_id_from_name(self, study_name: str) -> int:
        """Of the one study. Raises KeyError for another."""
        return self._mine(self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """Of the one study. Raises KeyError for another."""
        return self._inner.get_study_name_from_id(self._mine(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As stored."""
        return self._inner.get_study_directions(self._mine(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As stored."""
        return self._inner.get_study_user_attrs(self._mine(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As stored, and what there is in memory."""
        return {**self._inner.get_study_system_attrs(self._mine(study_id)), **self._more()}

    def _mine(self, study_id: int) -> int:
        if study_id != self._study_id:
            raise KeyError(study_id)
        return study_id

    # --- its trials --------------------------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As stored. Raises KeyError for a trial of another study."""
        found = next(
            (one for one in self.get_all_trials(self._study_id, deepcopy=False) if one._trial_id == trial_id), None
        )
        if found is None:
            raise KeyError(trial_id)
        return found

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As stored."""
        return self._inner.get_all_trials(self._mine(study_id), deepcopy=deepcopy, states=states)

    def remove_session(self) -> None:
        """Gives this thread's connection back."""
        self._inner.remove_session()

    # --- what is refused ---------------------------------------------------------------------------------------------

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ReadOnlyError(REFUSED)

    create_new_study = delete_study = set_study_user_attr = set_study_system_attr = _refuse
    create_new_trial = set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    set_trial_user_attr = set_trial_system_attr = _refuse


class Pictures:
    """Optuna's artifact store over pictures where they lie. `known` says which file an artifact is."""

    def __init__(self, known: Callable[[], Mapping[str, Path]]) -> None:
        self._known = known

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """A picture's bytes. Raises ArtifactNotFound where there is none of that name."""
        path = self._known().get(artifact_id)
        try:
            held: BufferedReader | None = path.open("rb") if path is not None else None
        except OSError:
            held = None
        if held is None:
            raise ArtifactNotFound("not found")
        return held

    def _refuse(self, *_: Any) -> NoReturn:
        raise ReadOnlyError(REFUSED)

    write = remove = _refuse
