"""A trial begins only where the driver's results are seen, and makes no folder of that name elsewhere."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from trainables import shared_results
from trainables.curve import Curve
from trainables.ray_adapter import Lost, trainable_for
from trainables.shared_results import marked, on_shared, sees


def started(results: Path, mark: Path | None) -> Any:
    about = {"number": 0, "folder": str(results / "trials" / "0"), "seed": 1, "decide_at": [2]}
    config = {"params": {"learning_rate": 1e-3, "max_train_epochs": 2}, "trial": about}
    return on_shared(trainable_for(Curve(), "score", threads=1), mark)(config)


def test_a_trial_trains_where_the_mark_is_seen(tmp_path: Path) -> None:
    with marked(tmp_path) as mark:
        assert sees(mark)
        assert started(tmp_path, mark).train()["budget"] == 1
    assert list((tmp_path / "logs").iterdir()) == [], "it goes with the driver"


def test_a_folder_of_the_same_name_on_another_disk_is_no_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_results, "PATIENCE_SECONDS", 0.0)
    results = tmp_path / "results"
    with marked(results) as mark:
        shutil.move(results, tmp_path / "elsewhere")
        (results / "logs").mkdir(parents=True)  # as an earlier trial, or a copy of the folder, left it
        (results / "logs" / ".here-0123").touch()
        with pytest.raises(Lost) as lost:
            started(results, mark).step()
    (line,) = str(lost.value).splitlines()
    assert line.endswith(
        f"does not see the results folder {results} of the driver; must be one folder that all nodes share"
    )
    assert not (results / "trials").exists(), "nothing is trained where nobody looks"


def test_drivers_that_share_a_study_do_not_undo_each_others_marks(tmp_path: Path) -> None:
    with marked(tmp_path) as first:
        with marked(tmp_path) as second:
            assert first != second and sees(first) and sees(second)
        assert sees(first) and not sees(second, patience=0.0)


def test_a_share_that_shows_it_late_is_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "logs" / ".here-late"
    mark.parent.mkdir()
    later = threading.Timer(0.7, mark.touch)
    later.start()
    try:
        assert sees(mark, patience=60.0)
    finally:
        later.join()


def test_without_a_mark_the_trainable_stays_what_it_was(tmp_path: Path) -> None:
    assert started(tmp_path, None).train()["budget"] == 1
