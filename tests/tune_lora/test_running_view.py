"""What `tune-lora status` says of a study that runs."""

from __future__ import annotations

import datetime as dt
import io
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.incarnations import Incarnation
from tune_lora import running_view
from tune_lora.store import StudyRecord, TrialRecord

BEGAN = dt.datetime(2030, 1, 1, 12, 0, 0)  # noqa: DTZ001  # as Optuna's


def running(number: int, reached: int) -> TrialRecord:
    history = {budget: {"score": 0.5} for budget in range(1, reached + 1)}
    return TrialRecord(number, "running", None, {}, {}, history=history, started=BEGAN)


def lines(folder: Path, *trials: TrialRecord, **spec: Any) -> list[str]:
    """One for each running trial, as words."""
    record = StudyRecord("s", "minimize", trials, spec=spec)
    console = Console(file=io.StringIO(), width=120)
    console.print(running_view.status(record, 10, folder, BEGAN + dt.timedelta(seconds=90)))
    said = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
    return [" ".join(line.split()) for line in said.splitlines() if line.startswith("trial ")]


def test_a_trial_is_where_its_folder_says(tmp_path: Path) -> None:
    begun = Incarnation.begin(tmp_path / "trials" / "0")
    begun.goes_on_from(None)
    begun.report({"budget": 3})
    first, second = lines(tmp_path, running(0, reached=2), running(1, reached=0))
    assert first.startswith("trial 0 ") and first.endswith(f" 3 {os.uname().nodename}"), "a report may be on its way"
    assert second.startswith("trial 1 ") and second.endswith("waits for a worker")


def test_a_mirrored_trial_that_trains_does_not_wait(tmp_path: Path) -> None:
    mirrored = {"resources": {"mirror": "s3://bucket/prefix"}}
    first, second = lines(tmp_path, running(0, reached=4), running(1, reached=0), **mirrored)
    assert first.endswith(" 4 its node")
    assert second.endswith("has not reported yet")
