"""Leaders that draw, judged again by prompts and noise that the search has not seen: real LoRAs of the tiny base."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tune_lora.by_hand import finished
from trainables import demo_character
from tune_lora import store, verify, verify_view, wording
from tune_lora.records import StudyRecord
from tune_lora.verification import Verification
from tune_lora.verify_measure import FIRST_SEED

SEEDS = [FIRST_SEED, FIRST_SEED + 1]


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, StudyRecord, Verification]:
    """Two LoRAs of one epoch, each judged again with two seeds."""
    place = tmp_path_factory.mktemp("images")
    demo_character.write_dataset(place / "set", count=8, size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(place / "cache"))
        document: dict[str, Any] = {
            "name": "faces",
            "dataset": {"path": str(place / "set"), "resolution": 64},
            "space": {
                "name": "short",
                "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-2}},
                "fixed": {"max_train_epochs": 1, "network_dim": 4, "network_alpha": 4},
            },
            "evaluation": {"n_images": 2, "steps": 2},
            "search": {"sampler": "random", "seed": 5},
            "budget": {"n_trials": 2, "plateau": None},
            "scheduler": {"name": "none"},
            "resources": {"concurrent": 1},
            "tracking": {"wandb": "off"},
            "results": str(place / "results"),
        }
        folder = finished(document)
        before = store.load(folder)
        _, found = verify.verify(folder, top=2, seeds=2)
    return folder, before, found


def test_each_lora_meets_the_same_new_prompts_and_keeps_its_pictures(verified: Any) -> None:
    folder, before, found = verified
    assert [one.trial for one in found.deciding.candidates] == [trial.number for trial in before.ranked()]
    assert found.deciding.kind == "checkpoint"
    for one in found.deciding.candidates:
        assert sorted(one.values) == SEEDS
        pictures = sorted((folder / "verify" / "images" / str(one.trial)).iterdir())
        assert [path.name for path in pictures] == [f"{seed}.png" for seed in SEEDS]


def test_the_untrained_base_meets_them_as_well(verified: Any) -> None:
    folder, before, found = verified
    assert sorted(found.untrained) == SEEDS
    kept = json.loads((folder / "verified.json").read_text())["untrained"]
    assert kept["mean"] == pytest.approx(statistics.fmean(found.untrained.values()))
    assert list(found.untrained.values()) != [before.untrained] * 2, "other prompts, another score"
    assert len(list((folder / "verify" / "images-untrained").iterdir())) == 2


def test_like_is_compared_with_like(verified: Any) -> None:
    folder, _, found = verified
    record = store.load(folder)
    base, winner = statistics.fmean(found.untrained.values()), found.deciding.winner
    change = abs(base - winner.mean) / base
    assert wording.improvement(record).startswith(f"{change:.1%} ")
    assert (
        f"({wording.number(winner.mean)} against {wording.number(base)} by prompts and seeds that the search never saw)"
        in (wording.improvement(record))
    )
    rows = {name: (untrained, trained) for name, untrained, trained in wording.against_baseline(record)}
    assert rows["score"] == (wording.number(record.untrained), wording.number(record.winner.value))
    console = Console(width=200, file=io.StringIO())
    console.print(verify_view.summary(record, found, folder))
    assert f"the untrained base, by the same prompts and seeds: {wording.number(base)}" in console.file.getvalue()
    assert "the untrained base, by the same prompts and seeds" in (folder / "report.html").read_text()


def test_nothing_is_judged_twice_and_more_seeds_ask_the_base_as_well(verified: Any) -> None:
    folder, _, found = verified
    before = (folder / "verify" / "measured.json").stat().st_mtime_ns
    _, again = verify.verify(folder, top=2, seeds=2)
    assert (folder / "verify" / "measured.json").stat().st_mtime_ns == before
    assert again.untrained == found.untrained
