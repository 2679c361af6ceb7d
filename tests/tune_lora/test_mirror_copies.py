"""Which copy of a mirrored study goes on: none that has something is overwritten by one that has not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from tests.tune_lora.studies import RATES
from trainables.mirror_store import MirrorStore
from tune_lora import mirroring, storage_files, store
from tune_lora.errors import InputError
from tune_lora.mirror_copies import Copy, ahead
from tune_lora.spec import StudySpec, from_mapping
from tune_lora.storage import patient


class Machine:
    """One with a disk of its own, whose drivers share a mirror with those of others."""

    def __init__(self, folder: Path, name: str) -> None:
        self.said: list[str] = []
        self.spec: StudySpec = from_mapping(
            {
                "name": "mine",
                "trainer": "curve",
                "space": RATES,
                "results": str(folder / name),
                "resources": {"cpu": 1, "gpu": 0, "mirror": (folder / "mirror").as_uri()},
                "tracking": {"wandb": "off"},
            },
            "study",
        )
        self.file = self.spec.folder / "study.db"

    def drive(self, *values: float, lost: tuple[float, ...] = ()) -> list[float | None]:
        """A driver from start to end; all values it has then. Of those `lost` the mirror never hears."""
        self.spec.folder.mkdir(parents=True, exist_ok=True)
        mirroring.restore(self.spec, self.said.append)
        study = store.open_study(self.spec.storage_url, "mine", "minimize")
        with mirroring.kept(study, self.spec, self.said.append):
            mirroring.of(study, self.spec)
            for value in values:
                study.add_trial(create_trial(state=TrialState.COMPLETE, value=value))
        for value in lost:
            study.add_trial(create_trial(state=TrialState.COMPLETE, value=value))
        values_then = [trial.value for trial in study.trials]
        storage = patient(study)
        assert storage is not None
        storage_files.close(storage.engine)
        return values_then


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    return Machine(tmp_path, "one"), Machine(tmp_path, "two")


def test_a_machine_that_comes_back_goes_on_from_what_another_did_meanwhile(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.drive(1.0, 2.0)
    assert two.drive(3.0, 4.0) == [1.0, 2.0, 3.0, 4.0]
    assert one.drive(5.0) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len([line for line in one.said if "2 trials" in line and "newer" in line]) == 1
    assert two.drive() == [1.0, 2.0, 3.0, 4.0, 5.0]
    aside = [path for path in one.spec.folder.iterdir() if path.name.startswith("study.db.")]
    assert len(aside) == 1  # nothing is ever deleted
    assert not [key for key in MirrorStore(one.spec.resources.mirror or "").listing("mine") if "study.db." in key]


def test_a_machine_goes_on_from_its_own_file_where_that_is_newer(machines: tuple[Machine, Machine]) -> None:
    one, _ = machines
    one.drive(1.0, lost=(2.0,))
    assert one.drive(3.0) == [1.0, 2.0, 3.0]
    assert one.said == []


def test_two_that_both_went_on_are_refused_and_neither_is_touched(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.drive(1.0, lost=(2.0,))
    two.drive(3.0, 4.0)
    place = MirrorStore(one.spec.resources.mirror or "")
    before = one.file.read_bytes(), place.get_bytes("mine/study.db")
    with pytest.raises(InputError, match=r"1 finished .* 2 .*must be one of them") as told:
        one.drive()
    assert "\n" not in str(told.value)
    assert (one.file.read_bytes(), place.get_bytes("mine/study.db")) == before
    one.file.rename(one.file.with_name("mine-of-before.db"))  # what the line says
    assert one.drive() == [1.0, 3.0, 4.0]


def test_another_study_of_the_name_is_not_overwritten(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.drive(1.0)
    two.spec.folder.mkdir(parents=True)
    other = store.open_study(two.spec.storage_url, "mine", "minimize")
    other.add_trial(create_trial(state=TrialState.COMPLETE, value=7.0))
    with pytest.raises(InputError, match="must be one of them"):
        two.drive()


def test_a_write_ahead_log_that_was_left_behind_spoils_no_copy(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.drive(1.0)
    two.spec.folder.mkdir(parents=True)
    for tail in ("-wal", "-shm"):
        two.file.with_name(f"study.db{tail}").write_bytes(b"of a database that is no more" * 100)
    assert two.drive(2.0) == [1.0, 2.0]


def test_a_copy_that_is_no_study_is_one_line(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    MirrorStore(one.spec.resources.mirror or "").put_bytes(b"x" * 5000, "mine/study.db")
    with pytest.raises(InputError, match=r"mine/study\.db.*cannot be read") as told:
        two.drive()
    assert "\n" not in str(told.value)
    assert not two.file.exists()


COUNTS = st.integers(0, 9)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_ahead_counts_what_each_did_after_they_parted(copied: int, lost: int, here: int, there: int) -> None:
    """`copied` trials ended in common and `lost` more on one machine, which then did `here`, the other one `there`."""
    parted = Copy(copied + lost, (("a", 0),), "t")
    one = Copy(parted.ended + here, (*parted.runs, ("b", parted.ended)), "t")
    other = Copy(copied + there, (*parted.runs, ("c", copied)), "t")
    assert ahead(one, other) == (lost + here, there)
    assert ahead(other, one) == (there, lost + here)
    assert ahead(parted, other) == (lost, there)
    assert ahead(one, parted) == (here, 0)


@given(COUNTS, COUNTS)
def test_two_studies_have_nothing_in_common(one: int, other: int) -> None:
    assert ahead(Copy(one, token="t"), Copy(other, token="u")) == (one, other)
