"""Where trials shared a base, their seconds are shares of a device's time: nothing that shows or uses them may take
them for the time that passed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from tests.tune_lora.studies import RATES
from tune_lora import analysis, build, exports, report, running_view, same_study, shares, spec, store, view
from tune_lora.records import StudyRecord, TrialRecord
from tune_lora.report._data import data
from tune_lora.searcher import StudySearcher
from tune_lora.team_report import _ends
from tune_lora.team_report._parts import Paragraph, Table
from tune_lora.tracking_messages import summary


def shown(what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(what)
    return str(console.file.getvalue())  # type: ignore[attr-defined] # it is the StringIO above


def trial(number: int, seconds: float = 60.0, pack: int = 1, state: Any = "complete") -> TrialRecord:
    value = 0.5 + number / 100 if state == "complete" else None
    params = {"learning_rate": 1e-3 * (number + 1)}
    return TrialRecord(number, state, value, params, params, seconds=seconds, pack=pack, history={1: {"score": 0.5}})


def study(*trials: TrialRecord, **more: Any) -> StudyRecord:
    return StudyRecord("s", "minimize", trials, **more)


PACKED = study(*(trial(number, pack=8) for number in range(4)))
ALONE = study(*(trial(number) for number in range(4)))


class NoRuns:
    """No run is at Weights & Biases."""

    def has(self, number: int) -> bool:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as its driver leaves it: two trials one by one, then two in packs of 8, after another run had them so."""
    made = tmp_path_factory.mktemp("results")
    given = {"name": "curves", "trainer": "curve", "space": RATES, "results": str(made), "budget": {"n_trials": 4}}
    asked = spec.from_mapping(given, "test")
    ready = build.plan(asked)
    asked.folder.mkdir()
    opened = store.open_study(asked.storage_url, asked.name, "minimize")
    same_study.settle(opened, ready)
    for seats, total in ((1, 2), (8, 4)):
        opened.set_user_attr(store.PACKED, seats)
        searcher = StudySearcher(
            opened, ready.space, direction="minimize", n_trials_total=total, sampler="random",
            trial_folder=lambda number: asked.folder / "trials" / str(number),
        )  # fmt: skip
        for number in range(total - 2, total):
            searcher.suggest(str(number))
            told = {"budget": 4, "metrics": {"score": 0.5}, "score": 0.5, "final": True, "seconds": 12.5}
            searcher.on_trial_result(str(number), told)
            searcher.on_trial_complete(str(number), told)
    exports.write_study_file(asked.as_mapping(), asked.folder)
    return asked.folder


def test_each_trial_says_on_how_many_seats_it_trained(folder: Path) -> None:
    record = store.load(folder)
    assert [one.pack for one in record.trials] == [1, 1, 8, 8]
    assert shares.note(record) == (
        "times are device time: a trial's own share of a base with 8 seats; 2 of 4 trials trained alone"
    )


def test_the_tables_have_it_beside_the_seconds(folder: Path, tmp_path: Path) -> None:
    table = exports.trial_table(record := store.load(folder), record.trials)
    with exports.write_csv(tmp_path / "all.csv", table).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["seconds"], row["pack"]) for row in rows] == [("12.5", "1")] * 2 + [("12.5", "8")] * 2
    exports.write_parquet(tmp_path / "all.parquet", table)
    assert pq.read_table(tmp_path / "all.parquet").column("pack").to_pylist() == [1, 1, 8, 8]


def test_trials_that_trained_alone_need_no_word() -> None:
    assert shares.note(ALONE) == "" and shares.time_name(ALONE) == "training time"
    assert "device" not in shown(view.top_table(ALONE))
    page = report.render(ALONE, Path())
    assert "Training time" in page and "Device time" not in page and "own share" not in page


def test_top_says_whose_time_it_is() -> None:
    said = shown(view.top_table(PACKED))
    assert "device time" in said.splitlines()[0]
    assert "times are device time: a trial's own share of a base with 8 seats" in said


def test_the_report_says_whose_time_it_is() -> None:
    page = report.render(PACKED, Path())
    assert "<dt>Device time</dt><dd>4 min over all trials</dd>" in page.replace("\n", "")
    assert "a trial&#39;s own share of a base with 8 seats" in page
    given = data(PACKED, Path())
    assert given["time"] == "device time" and given["trials"][0]["share"] == "its share of a pack of 8"
    assert data(ALONE, Path())["time"] == "training time" and data(ALONE, Path())["trials"][0]["share"] == ""


def test_the_team_report_says_whose_time_it_is() -> None:
    blocks = list(_ends.cost(PACKED, NoRuns()))  # type: ignore[arg-type] # what is asked of it
    (table,) = [one for one in blocks if isinstance(one, Table)]
    assert table.head[2] == "device time"
    assert any("share of a base with 8 seats" in str(one) for one in blocks if isinstance(one, Paragraph))
    assert "training time" in str(list(_ends.cost(ALONE, NoRuns())))  # type: ignore[arg-type] # as above


def test_weights_and_biases_is_told_the_seats() -> None:
    assert summary(PACKED, PACKED.trials[0])["pack"] == 8
    assert "pack" not in summary(ALONE, ALONE.trials[0])


def test_status_says_that_a_running_trial_shares_its_base(tmp_path: Path) -> None:
    running = study(trial(0, pack=8, state="running"), trial(1, state="running"))
    first, second = [
        line for line in shown(running_view.status(running, 4, tmp_path)).splitlines() if "trial " in line
    ][-2:]
    assert first.rstrip().endswith("in a pack of 8") and "pack" not in second


def cost_of(record: StudyRecord) -> analysis.Finding:
    return next(one for one in analysis.findings(record) if one.key == "cost")


def test_the_finding_on_cost_says_whose_time_it_is_and_what_would_be_faster() -> None:
    said = "4 min of device time in 4 trials, typically 60 s each, its share of a base with others"
    assert cost_of(PACKED).sentence.startswith(said)
    slow = study(*(trial(number, 7200) for number in range(4)), spec={"trainer": "diffusion_lora"})
    assert "resources.packing: auto" in cost_of(slow).advice
    packed = replace(slow, trials=tuple(replace(one, pack=8) for one in slow.trials))
    others = replace(slow, spec={"trainer": "classifier"})
    for record in (packed, others):
        assert (advice := cost_of(record).advice) and "packing" not in advice


# --- how long it takes ------------------------------------------------------------------------------------------------


def test_the_time_that_is_left_counts_devices_and_not_trials() -> None:
    """Eight trials on a base, each of which takes 10 s of its device: 80 s for eight more, not 10."""
    ended = [trial(number, 10.0, pack=8) for number in range(8)]
    running = [trial(number, 0.0, pack=8, state="running") for number in range(8, 16)]
    assert view.time_left(study(*ended, *running), 16) == pytest.approx(80)
    two_bases = [*running, *(trial(number, 0.0, pack=8, state="running") for number in range(16, 24))]
    assert view.time_left(study(*ended, *two_bases), 24) == pytest.approx(16 * 10 / 2)


@given(st.lists(st.integers(1, 64), min_size=0, max_size=70))
def test_devices_are_no_more_than_trials_and_never_none(packs: list[int]) -> None:
    found = shares.devices(study(*(trial(number, pack=of, state="running") for number, of in enumerate(packs))))
    assert 1 <= found <= max(1, len(packs))
    if set(packs) <= {1} and packs:
        assert found == len(packs)
