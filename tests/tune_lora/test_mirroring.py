"""What a driver brings from its study's mirror, and what it keeps there; on folders, as on any object storage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from tests.tune_lora.studies import RATES
from trainables.mirror import Mirror
from trainables.mirror_store import MirrorStore
from trainables.node_folders import NODE_FOLDER
from trainables.protocol import TrialContext
from tune_lora import locks, mirroring, store
from tune_lora.errors import InputError, InputErrors
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.spec import StudySpec, from_mapping
from tune_lora.study import run


def study(folder: Path, **changes: Any) -> StudySpec:
    return from_mapping(
        {
            "name": "mine",
            "trainer": "curve",
            "space": RATES,
            "results": str(folder / "results"),
            "budget": {"n_trials": 3, "plateau": None},
            "resources": {"cpu": 1, "gpu": 0, "concurrent": 1, "mirror": (folder / "mirror").as_uri()},
            "tracking": {"wandb": "off"},
            **changes,
        },
        "study",
    )


class Said:
    """A view that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, record: StudyRecord, *, total: int, force: bool = False) -> None:
        pass

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_study_goes_on_from_its_mirror_on_an_empty_machine(tmp_path: Path) -> None:
    spec = study(tmp_path)
    record = run(spec)
    kept = MirrorStore(spec.resources.mirror or "").listing("mine")
    assert {"study.db", "study.yaml", "report.html", "all_trials.csv", "best_params.json"} <= set(kept)
    assert {f"trials/{number}/reports/0001.jsonl" for number in range(3)} <= set(kept)
    assert not [key for key in kept if key.startswith(("logs/", "lock"))]
    shutil.rmtree(tmp_path / "results")
    said = Said()
    again = run(spec, n_trials="+1", view=said)
    assert [trial.value for trial in again.trials[:3]] == [trial.value for trial in record.trials]
    assert len(again.trials) == 4
    assert any("goes on from its copy" in line for line in said.lines)


def test_a_mirror_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_text("a file, not a folder")
    with pytest.raises(InputError, match=r"resources\.mirror") as told:
        run(study(tmp_path))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "results" / "mine" / "study.db").exists()


def test_a_place_with_a_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputErrors, match=r"resources\.mirror: got credentials in it") as told:
        study(tmp_path, resources={"mirror": "s3://key:hidden-word@bucket/x"})
    assert "hidden-word" not in str(told.value)


def test_pictures_of_all_and_files_of_the_best_are_brought(tmp_path: Path) -> None:
    spec = study(tmp_path)
    place = MirrorStore(spec.resources.mirror or "")
    for number in range(2):
        for name in ("images/a.png", "lora/adapter.safetensors"):
            place.put_bytes(b"%d %s" % (number, name.encode()), f"mine/trials/{number}/files/{name}")
    trials = tuple(
        TrialRecord(number, "complete", float(number), {}, {}, images={1: {"a": f"trials/{number}/images/a.png"}})
        for number in range(2)
    )
    mirroring.fetch(spec, StudyRecord("mine", "minimize", trials), Said().note)
    found = {path.relative_to(spec.folder).as_posix() for path in spec.folder.rglob("*") if path.is_file()}
    assert found == {"trials/0/images/a.png", "trials/1/images/a.png", "trials/0/lora/adapter.safetensors"}
    assert (spec.folder / "trials/1/images/a.png").read_bytes() == b"1 images/a.png"


def test_a_record_that_names_files_elsewhere_brings_nothing_there(tmp_path: Path) -> None:
    spec = study(tmp_path)
    MirrorStore(spec.resources.mirror or "").put_bytes(b"x", "mine/outside.png")  # where the first one leads there
    outside = TrialRecord(0, "running", None, {}, {}, images={1: {"a": "trials/0/../../../outside.png", "b": "/etc/x"}})
    mirroring.fetch(spec, StudyRecord("mine", "minimize", (outside,)), Said().note)
    assert not list((tmp_path / "results").rglob("*"))


@dataclass
class Preparing:
    """A trainer with something to do before the first trial."""

    def prepare(self, context: TrialContext) -> dict[str, Any]:
        picture = context.folder / "images" / "base.png"
        picture.parent.mkdir()
        picture.write_bytes(b"base")
        return {"baseline": {"score": 1.0}, "calibration": {}, "images": {"base": picture}}


def test_what_a_node_prepares_is_brought_to_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_FOLDER, str(tmp_path / "node"))
    spec = study(tmp_path)
    folder = spec.folder / "base"
    mirror = Mirror(spec.resources.mirror or "", "mine", "t")
    found = mirror.prepared(Preparing(), TrialContext(params={}, folder=folder))
    mirroring.fetch_base(spec, folder, Said().note)
    assert found["images"] == {"base": folder / "images" / "base.png"}
    assert (folder / "images" / "base.png").read_bytes() == b"base"


def test_the_study_is_copied_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "EVERY_SECONDS", 0.1)
    spec = study(tmp_path)
    place, said = MirrorStore(spec.resources.mirror or ""), Said()
    spec.folder.mkdir(parents=True)
    held = store.open_study(spec.storage_url, "mine", "minimize")
    with mirroring.kept(held, spec, said.note):
        held.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))
        wait_for(lambda: trials_there(place, tmp_path) == [0.5])
        held.add_trial(create_trial(state=TrialState.COMPLETE, value=0.25))
        wait_for(lambda: trials_there(place, tmp_path) == [0.5, 0.25])
    assert "all_trials.csv" in place.listing("mine")
    assert said.lines == []


def trials_there(place: MirrorStore, scratch: Path) -> list[float | None]:
    if not place.has("mine/study.db"):
        return []
    place.get("mine/study.db", scratch / "copy" / "study.db")
    return [trial.value for trial in store.load(scratch / "copy").trials]


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "never"
        time.sleep(0.1)


def test_a_mirror_that_is_away_is_said_and_stops_nothing(tmp_path: Path) -> None:
    spec, said = study(tmp_path), Said()
    spec.folder.mkdir(parents=True)
    held = store.open_study(spec.storage_url, "mine", "minimize")
    blocked = tmp_path / "mirror"
    blocked.write_text("a file, not a folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MirrorStore.__init__, "__kwdefaults__", {"patience": 0.0})
        with mirroring.kept(held, spec, said.note):
            pass
    assert said.lines and all("the mirror was not brought up to date" in line for line in said.lines)


def sever(mirror: Path) -> None:
    """Makes a place of which nothing can be asked."""
    mirror.symlink_to(mirror)


class Severing(Said):
    """A view under whose eyes the mirror goes away when the study has all its trials."""

    def __init__(self, mirror: Path, total: int) -> None:
        super().__init__()
        self._mirror, self._total = mirror, total

    def update(self, record: StudyRecord, *, total: int, force: bool = False) -> None:
        ended = sum(trial.state in ("complete", "pruned") for trial in record.trials)
        if force and ended == self._total and self._mirror.is_dir():
            self._mirror.rename(self._mirror.with_name("away"))
            sever(self._mirror)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_results_are_written_when_the_mirror_is_away_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MirrorStore.__init__, "__kwdefaults__", {"patience": 0.0})
    spec, view = study(tmp_path), Severing(tmp_path / "mirror", 3)
    record = run(spec, view=view)
    assert {trial.state for trial in record.trials} <= {"complete", "pruned"} and len(record.trials) == 3
    written = {path.name for path in spec.folder.iterdir()}
    assert {"all_trials.csv", "best_params.json", "report.html", "figures"} <= written
    assert any("not everything was brought from the mirror" in line for line in view.lines)


def test_what_the_mirror_does_not_give_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MirrorStore.__init__, "__kwdefaults__", {"patience": 0.0})
    sever(tmp_path / "mirror")
    spec, said = study(tmp_path), Said()
    trial = TrialRecord(0, "complete", 1.0, {}, {}, images={1: {"a": "trials/0/images/a.png"}})
    mirroring.fetch(spec, StudyRecord("mine", "minimize", (trial,)), said.note)
    mirroring.fetch_base(spec, spec.folder / "base", said.note)
    assert len(said.lines) == 2
    assert all("not everything was brought from the mirror" in line and "\n" not in line for line in said.lines)


def test_a_driver_that_is_too_late_brings_nothing(tmp_path: Path) -> None:
    spec = study(tmp_path)
    place = MirrorStore(spec.resources.mirror or "")
    store.open_study(store.sqlite_url(tmp_path), "mine", "minimize")
    place.put(tmp_path / "study.db", "mine/study.db")
    with locks.held(spec.folder / "lock", "study 'mine'"), pytest.raises(InputError, match="running already"):
        run(spec)
    assert not (spec.folder / "study.db").exists()


def test_a_study_in_a_database_of_several_is_copied_too(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path / 'several.db'}"
    spec, said = study(tmp_path, storage=shared), Said()
    store.open_study(shared, "another", "minimize")
    held = store.open_study(shared, "mine", "minimize")
    held.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5))
    with mirroring.kept(held, spec, said.note):
        pass
    assert "all_trials.csv" in MirrorStore(spec.resources.mirror or "").listing("mine")
    assert said.lines == []


def test_a_copy_that_nobody_can_read_is_said_and_stops_nothing(tmp_path: Path) -> None:
    spec, said = study(tmp_path), Said()
    spec.folder.mkdir(parents=True)
    held = store.open_study(spec.storage_url, "mine", "minimize")
    with mirroring.kept(held, spec, said.note):
        held._storage.delete_study(held._study_id)  # whatever is copied from now on holds no study
        store.open_study(spec.storage_url, "another", "minimize")
    assert said.lines and all("the mirror was not brought up to date" in line for line in said.lines)


def test_a_study_keeps_its_token(tmp_path: Path) -> None:
    spec = study(tmp_path)
    held = store.open_study(store.sqlite_url(tmp_path), "mine", "minimize")
    first = mirroring.of(held, spec)
    assert first is not None and mirroring.of(held, spec) == first
    (tmp_path / "other").mkdir()
    other = store.open_study(store.sqlite_url(tmp_path / "other"), "mine", "minimize")
    assert mirroring.of(other, spec) != first
    assert mirroring.of(held, study(tmp_path, resources={})) is None
