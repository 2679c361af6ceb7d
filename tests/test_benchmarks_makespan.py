"""The benchmark of a whole packed study: what it compares, and that its studies run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import packed_makespan
from benchmarks.packed_makespan import SIDES
from benchmarks.packed_makespan_figures import Ran, figures, loss_distances
from search_spaces.space import Space
from trainables import demo_character
from tune_lora import spec
from tune_lora.records import State, StudyRecord, TrialRecord

BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def test_configurations_keep_the_rules_and_are_the_same_every_time() -> None:
    space, drawn = Space.load("lora_tiny"), packed_makespan.configurations(24, 42)
    assert [space.violations(space.resolve(one)) for one in drawn] == [[]] * 24
    assert all(one not in drawn[:number] for number, one in enumerate(drawn))
    assert drawn == packed_makespan.configurations(24, 42) != packed_makespan.configurations(24, 43)


@pytest.mark.parametrize("form", ["same trials", "search"])
def test_nothing_but_packing_differs(form: str, tmp_path: Path) -> None:
    documents = {}
    for side in SIDES:
        path = packed_makespan.study_file(tmp_path / side, form, side, 42, tmp_path / "images")
        documents[side] = spec.load(path).as_mapping()
        documents[side].pop("results")
    packed, unpacked = (documents[side].pop("resources") for side in ("packed", "unpacked"))
    assert documents["packed"] == documents["unpacked"]
    assert (packed.pop("packing"), unpacked.pop("packing")) == (8, "off")
    assert packed == unpacked


@pytest.mark.parametrize("renders", [0, 3])
def test_real_renders_are_taken_where_there_are_some(
    renders: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "fluent3d" / "character"
    source.mkdir(parents=True)
    for number in range(renders):
        (source / f"{number}.webp").write_bytes(b"a picture")
        (source / f"{number}.txt").write_text("a caption", "utf-8")
    monkeypatch.setenv("TUNE_LORA_DATA", str(tmp_path))
    monkeypatch.setattr(packed_makespan, "IMAGES", 2)
    folder, said = packed_makespan.images(tmp_path / "images")
    assert len([path for path in folder.iterdir() if path.suffix == ".txt"]) == 2
    assert said == ("2 renders of Fluent Emoji's smiley" if renders else "2 drawn images")


def trial(
    number: int, state: State, seconds: tuple[float, float], losses: Mapping[int, float], **more: Any
) -> TrialRecord:
    began, ended = (BEGAN + dt.timedelta(seconds=one) for one in seconds)
    history = {budget: {"train_loss": loss, "val_loss": 1.0} for budget, loss in losses.items()}
    given = {"value": None, "config": {"rate": number}, "seed": number} | more
    return TrialRecord(number=number, state=state, params={}, started=began, finished=ended, history=history, **given)


def ran(*trials: TrialRecord, seconds: float) -> Ran:
    return Ran(StudyRecord("study", "minimize", trials), seconds)


UNPACKED = ran(
    trial(0, "complete", (10, 50), {1: 0.5, 2: 0.25}, value=0.3),
    trial(1, "pruned", (12, 110), {1: 0.5}),
    seconds=200,
)
PACKED = ran(
    trial(0, "pruned", (5, 30), {1: 0.505}),
    trial(1, "complete", (5, 45), {1: 0.5, 2: 0.4}, value=0.35),
    seconds=90,
)


def test_figures_follow_from_the_records() -> None:
    pairs = {"same trials": [{"unpacked": UNPACKED, "packed": PACKED}]}
    found = {one["name"]: one for one in figures(pairs, [0.3, 0.4, 0.35], {1: 0.02}, "images")}
    assert {name: one["measured"] for name, one in found.items()} == {
        "packed_makespan_ratio": 0.4,  # 40 s against 100 s
        "packed_command_ratio": 0.45,
        "packed_best_score": 0.5,  # 0.05 worse, of a spread of 0.1
        "packed_study_losses": 0.005,  # the median of 0.01 and 0, of the epochs that both trained
    }
    assert "1 of 2 trials within 0.001" in found["packed_study_losses"]["note"]
    assert "trial 1: 0 (alone 0.02); 0 trials ended at the same epoch" in found["packed_study_losses"]["note"]


def test_other_trials_are_not_compared_as_if_they_were_the_same() -> None:
    other = ran(trial(0, "complete", (0, 1), {1: 0.5}, value=0.3, seed=7), UNPACKED.record.trials[1], seconds=1)
    with pytest.raises(ValueError, match="trial 0 is not the same"):
        loss_distances(other.record, UNPACKED.record)


@pytest.mark.slow  # two studies by the command, each with Ray
def test_both_sides_of_the_same_trials_run_and_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_makespan, "EPOCHS", {"max_train_epochs": 4})
    monkeypatch.setattr(packed_makespan, "EVALUATION", {"n_images": 2, "steps": 2})
    images, pair = tmp_path / "images", dict[str, Ran]()
    demo_character.write_dataset(images, count=16)
    for side in SIDES:
        study = packed_makespan.study_file(tmp_path / side, "same trials", side, 42, images, trials=2)
        pair[side] = packed_makespan.run(study, tmp_path / "cache")
    assert all(0 < one.makespan < one.seconds for one in pair.values())
    assert packed_makespan.run(study, tmp_path / "no cache").seconds == pair["packed"].seconds  # it is not run again
    apart = loss_distances(pair["packed"].record, pair["unpacked"].record)
    assert set(apart) == {0, 1}
    assert max(apart.values()) < 1e-2  # the second has a high rate
    assert all(one.last_budget >= 3 for side in pair.values() for one in side.record.trials)
    monkeypatch.setattr(packed_makespan, "CONTROLS", 1)
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    (alone,) = packed_makespan.controls(tmp_path / "unpacked" / "study.yaml", pair, tmp_path).values()
    assert 0 < alone < 1e-2
