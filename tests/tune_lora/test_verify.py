"""Leaders of a study measured again: for real on Ray, kept, and used for what is recommended."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests.tune_lora.by_hand import finished
from tune_lora import spec, store, verify, verify_view, view, wording
from tune_lora.build import plan
from tune_lora.errors import InputError
from tune_lora.records import StudyRecord
from tune_lora.study import NoView
from tune_lora.verify_ledger import Ledger
from tune_lora.verify_measure import FIRST_SEED, configuration

TRIALS = 8
DOCUMENT: dict[str, Any] = {
    "name": "waves",
    "trainer": "curve",
    "curve": {"noise": 0.02},
    "space": {
        "name": "narrow",
        "parameters": {
            "learning_rate": {"type": "loguniform", "low": 3e-4, "high": 3e-3},
            "network_dim": {"type": "categorical", "choices": [8, 16]},
        },
        "fixed": {"max_train_epochs": 2},
    },
    "search": {"sampler": "random", "seed": 5},
    "budget": {"n_trials": TRIALS, "plateau": None},
    "scheduler": {"name": "none"},
    "resources": {"concurrent": 2},
    "tracking": {"wandb": "off"},
}


def finished_study(folder: Path, **changes: Any) -> Path:
    return finished(DOCUMENT | {"results": str(folder)} | changes)


class Notes(NoView):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, StudyRecord, Any]:
    """A study whose best three were trained again with two seeds."""
    folder = finished_study(tmp_path_factory.mktemp("verify"))
    before = store.load(folder)
    _, found = verify.verify(folder, top=3, seeds=2, retrain=True)
    return folder, before, found


def test_the_leaders_are_trained_again_with_the_same_new_seeds(verified: Any) -> None:
    folder, before, found = verified
    leaders = [trial.number for trial in before.ranked()[:3]]
    assert [one.trial for one in found.deciding.candidates] == leaders
    assert found.deciding.seeds == (FIRST_SEED, FIRST_SEED + 1)
    again = store.load(folder / "verify" / "waves-again-1")
    assert len(again.trials) == 6
    assert {trial.seed for trial in again.trials} == {FIRST_SEED, FIRST_SEED + 1}
    assert not {trial.seed for trial in again.trials} & {trial.seed for trial in before.trials}
    by_hand = {
        (trial.config["learning_rate"], trial.config["network_dim"], trial.seed): trial.value for trial in again.trials
    }
    for one in found.deciding.candidates:
        config = before.trials[one.trial].config
        for seed, value in one.values.items():
            assert value == by_hand[config["learning_rate"], config["network_dim"], seed]


def test_the_recommendation_is_the_one_that_did_best_again(verified: Any) -> None:
    folder, _, found = verified
    record = store.load(folder)
    means = {one.trial: one.mean for one in found.deciding.candidates}
    assert found.deciding.trial == min(means, key=lambda number: means[number])
    assert record.is_verified
    assert record.winner is not None
    assert record.winner.number == found.deciding.trial
    assert sum(one.best for one in found.deciding.candidates) == pytest.approx(1)
    content = json.loads((folder / "best_params.json").read_text())
    assert content["best_trial_number"] == found.deciding.trial
    assert content["best_value"] == pytest.approx(means[found.deciding.trial])
    assert content["verification"]["searched_value"] == record.winner.value
    text = (folder / "best_config.yaml").read_text()
    assert "not verified" not in text
    assert "# verified: trial" in text
    assert yaml.safe_load(text) == record.winner.config
    assert json.loads((folder / "verified.json").read_text())["trial"] == found.deciding.trial
    assert "not verified" not in (folder / "report.html").read_text()


def test_it_is_told_how_sure_that_is_and_how_lucky_the_leader_was(verified: Any) -> None:
    folder, before, found = verified
    console = Console(width=200, file=io.StringIO())
    console.print(verify_view.summary(store.load(folder), found, folder))
    text = console.file.getvalue()
    assert "trained again, 2 new seeds each" in text
    assert f"recommended: trial {found.deciding.trial}" in text
    assert f"trial {before.best.number} led the search" in text
    console.print(view.top_table(store.load(folder)))
    assert "verified (is the best)" in console.file.getvalue()


def test_more_seeds_add_to_those_that_are_known(verified: Any) -> None:
    folder, _, first = verified
    notes, batch = Notes(), folder / "verify" / "waves-again-1" / "study.db"
    before = batch.read_bytes()
    _, found = verify.verify(folder, top=3, seeds=3, retrain=True, view=notes)
    assert batch.read_bytes() == before  # what was trained is not trained again
    assert len(store.load(folder / "verify" / "waves-again-2").trials) == 3
    assert any("training again: 3 times" in line for line in notes.said)
    for one in first.deciding.candidates:
        assert one.values.items() <= found.deciding.candidate(one.trial).values.items()
    assert len(found.deciding.seeds) == 3


def test_nothing_is_measured_twice(verified: Any) -> None:
    folder, *_ = verified
    notes = Notes()
    known = store.load(folder).verification
    _, found = verify.verify(folder, top=3, seeds=2, retrain=True, view=notes)
    assert not [line for line in notes.said if "again" in line]
    assert len(found.deciding.seeds) >= len(known["verdicts"][-1]["seeds"])  # no evidence is let go


def test_a_better_trial_that_came_later_is_said_to_be_unverified(verified: Any) -> None:
    folder, *_ = verified
    record = store.load(folder)
    later = dataclasses.replace(record.trials[0], number=99, value=-1.0)
    grown = dataclasses.replace(record, trials=(*record.trials, later))
    assert not grown.is_verified
    assert grown.overtaken_by == later
    assert grown.winner == record.winner  # until it is verified, too
    (caveat,) = wording.caveats(grown)
    assert "verified among the earlier trials only: trial 99 has scored better since" in caveat


@pytest.mark.slow  # beside `test_more_seeds_add_to_those_that_are_known`
def test_what_a_killed_verify_had_begun_goes_on(tmp_path: Path, ray_session: None) -> None:
    folder = finished_study(tmp_path)
    record = store.load(folder)
    numbers = [trial.number for trial in record.ranked()[:2]]
    pairs = [(number, FIRST_SEED + seed) for seed in (0, 1) for number in numbers]
    batch = Ledger(folder / "verify", record.trials).begin("waves-again", pairs)
    _, found = verify.verify(folder, top=2, seeds=2, retrain=True)
    assert [path.name for path in (folder / "verify").iterdir() if path.is_dir()] == [batch.name]
    assert len(found.deciding.candidates) == 2


class TestMistakes:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return finished_study(tmp_path)

    def test_what_cannot_be_judged_again_must_be_trained_again(self, folder: Path) -> None:
        with pytest.raises(InputError, match=r"trainer curve.*must be verified with --retrain"):
            verify.verify(folder)
        assert not (folder / "verify").exists()

    @pytest.mark.parametrize(("asked", "why"), [({"top": 0}, "--top: got 0"), ({"seeds": 1}, "--seeds: got 1")])
    def test_too_little_is_one_line(self, folder: Path, asked: dict[str, int], why: str) -> None:
        with pytest.raises(InputError, match=why):
            verify.verify(folder, retrain=True, **asked)

    def test_a_damaged_ledger_is_one_line(self, folder: Path) -> None:
        (folder / "verify").mkdir()
        (folder / "verify" / "measured.json").write_text("{")
        with pytest.raises(InputError, match=r"measured\.json: cannot be read"):
            verify.verify(folder, retrain=True)

    def test_a_study_that_runs_is_not_verified(self, folder: Path) -> None:
        from tune_lora import locks

        asked = spec.load(folder / "study.yaml")
        with (
            locks.driving(asked.storage_url, folder, asked.name),
            pytest.raises(InputError, match="is running already"),
        ):
            verify.verify(folder, retrain=True)


def test_a_changed_trial_is_measured_anew(tmp_path: Path) -> None:
    record = store.load(finished_study(tmp_path))
    ledger = Ledger(tmp_path, record.trials)
    from tune_lora.verify_ledger import Measured

    ledger.note("retrained", (0, FIRST_SEED), Measured(0.5))
    assert Ledger(tmp_path, record.trials).get("retrained", (0, FIRST_SEED)) == Measured(0.5)
    other = (dataclasses.replace(record.trials[0], config={"learning_rate": 1.0}), *record.trials[1:])
    assert Ledger(tmp_path, other).get("retrained", (0, FIRST_SEED)) is None


def test_a_configuration_is_told_by_what_does_not_follow(tmp_path: Path) -> None:
    folder = finished_study(tmp_path)
    space = plan(spec.load(folder / "study.yaml")).space
    trial = store.load(folder).trials[0]
    assert configuration(trial, space) == trial.params
    longer = dataclasses.replace(trial, config={**trial.config, "max_train_epochs": 9})
    assert configuration(longer, space) == {**trial.params, "max_train_epochs": 9}
