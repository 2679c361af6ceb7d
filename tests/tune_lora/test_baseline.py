"""How trials compare with the study's own baseline: in percent, on every trial, wherever trials are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from search_spaces.space import Space
from tune_lora import baseline, exports, report, spec, view, wording
from tune_lora.build import plan
from tune_lora.knowledge import gather
from tune_lora.scheduler import build as build_scheduler
from tune_lora.store import StudyRecord, TrialRecord

WAS = {"lora_rank": 16, "learning_rate": 2e-4, "batch_size": 1}


def trial(number: int, value: float | None, provenance: str = "sampler", **params: Any) -> TrialRecord:
    settings = WAS | params
    state = "complete" if value is not None else "pruned"
    return TrialRecord(number, state, value, settings, settings, provenance=provenance)


def study(*trials: TrialRecord, direction: Any = "minimize") -> StudyRecord:
    return StudyRecord("s", direction, trials, score_name="val_loss")


BASE = trial(0, 2.0, baseline.PROVENANCE)
STUDY = study(BASE, trial(1, 1.5, lora_rank=64), trial(2, 3.0, lora_rank=8, learning_rate=5e-5), trial(3, None))


@pytest.mark.parametrize(
    ("direction", "value", "percent"),
    [("minimize", 1.5, 25.0), ("minimize", 3.0, -50.0), ("maximize", 3.0, 50.0), ("minimize", 2.0, 0.0)],
)
def test_improvement_is_in_percent_of_the_baseline(direction: str, value: float, percent: float) -> None:
    record = study(BASE, trial(1, value), direction=direction)
    assert baseline.improvement(record, record.trials[1]) == pytest.approx(percent)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_better_is_positive_and_worse_is_negative(base: float, value: float) -> None:
    record = study(trial(0, base, baseline.PROVENANCE), trial(1, value))
    gain = baseline.improvement(record, record.trials[1])
    assert gain is not None and (gain > 0) == (value < base) and (gain < 0) == (value > base)


def test_every_completed_trial_has_one_and_no_other() -> None:
    assert baseline.improvements(STUDY) == {0: 0.0, 1: 25.0, 2: -50.0}


@pytest.mark.parametrize(
    "record",
    [study(trial(0, 1.0)), study(trial(0, None, baseline.PROVENANCE), trial(1, 1.0)),
     study(trial(0, 0.0, baseline.PROVENANCE), trial(1, 1.0))],
    ids=["none", "not-complete", "zero"],
)  # fmt: skip
def test_without_a_baseline_there_is_nothing_to_tell(record: StudyRecord) -> None:
    assert baseline.improvement(record, record.trials[-1]) is None
    assert wording.over_baseline(record, record.trials[-1]) == ""


def test_a_baseline_that_was_run_again_is_the_baseline() -> None:
    record = study(trial(0, None, baseline.PROVENANCE), trial(1, None, "retry:0"), trial(2, 2.0, "retry:1"))
    assert baseline.baseline_trial(record) == record.trials[2]
    assert not baseline.is_one(1, ["sampler", "retry:0"].__getitem__)


def test_each_hyperparameter_is_compared() -> None:
    rank, rate, batch = baseline.changes(STUDY)
    assert (rank.baseline, rank.best, rank.percent, rank.better, rank.worse) == (16, 64, 300.0, 1, 1)
    assert (rate.percent, rate.better, rate.worse) == (0.0, 0, 1)
    assert (batch.better, batch.worse) == (0, 0)


def test_the_best_five_and_the_worst_three_do_not_overlap() -> None:
    record = study(BASE, *(trial(number, 1 + number / 10) for number in range(1, 7)))
    assert [one.number for one in baseline.best(record)] == [1, 2, 3, 4, 5]
    assert [one.number for one in baseline.worst(record)] == [0, 6]


def test_the_tables_hold_it(tmp_path: Path) -> None:
    path = exports.write_csv(tmp_path / "all.csv", exports.trial_table(STUDY, STUDY.trials))
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["improvement_percent"] for row in rows] == ["0.0", "25.0", "-50.0", ""]
    assert "improvement_percent" not in exports.trial_table(study(trial(0, 1.0)), []).columns


def shown(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


def test_a_terminal_shows_it(tmp_path: Path) -> None:
    table = shown(view.top_table(STUDY))
    assert "vs baseline" in table and "+25.0%" in table and "-50.0%" in table
    assert "25.0% better than the baseline (trial 0, 2)" in shown(view.panel(STUDY, 20))
    assert "25.0% better than the baseline (trial 0, 2)" in shown(view.summary(STUDY, tmp_path))


def test_the_report_shows_it(tmp_path: Path) -> None:
    page = report.render(STUDY, tmp_path)
    assert "Against the baseline" in page and "25.0% better than the baseline" in page
    assert "The best 3" in page and "+300.0%" in page and "1 of 2 better than the baseline" in page
    assert "Against the baseline</h2>" in page
    assert "Against the baseline</h2>" not in report.render(study(trial(0, 1.0)), tmp_path)


# --- run first, and never pruned -------------------------------------------------------------------------------------


def text_study(tmp_path: Path, **search: Any) -> spec.StudySpec:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    base = tmp_path / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text('{"model_type": "qwen2"}')
    (base / "model.safetensors").write_bytes(b"")
    given = {"name": "t", "trainer": "llm_lora", "base": str(base), "text": {"path": str(data)}, "space": "llm_lora"}
    return spec.from_mapping(given | {"search": search}, "test")


def test_the_baseline_of_a_space_runs_first_unless_it_is_not_wanted(tmp_path: Path) -> None:
    space = Space.load("llm_lora")

    def references(**search: Any) -> list[str]:
        return [one.provenance for one in gather(text_study(tmp_path, **search), space).references]

    assert references() == references(priors=True) == references(priors=["baseline"]) == [baseline.PROVENANCE]
    assert references(priors=False) == []


def test_other_references_are_run_when_they_are_asked_for_only() -> None:
    demo = spec.from_mapping({"name": "t", "dataset": {"path": "x"}, "space": "lora_v2_1"}, "test")
    assert gather(demo, Space.load("lora_v2_1")).references == ()


def test_the_baseline_is_never_pruned() -> None:
    from types import SimpleNamespace

    def reported(number: int, value: float, **more: Any) -> str:
        tune = SimpleNamespace(trial_id=str(number), config={"trial": {"number": number, **more}})
        return str(scheduler.on_trial_result(None, tune, {"budget": 2, "score": value}))

    scheduler = build_scheduler("asha", grace=2, eta=3, max_budget=20)
    assert reported(0, 1.0) == "CONTINUE"
    assert reported(1, 5.0) == "STOP"
    assert reported(2, 5.0, spared=True) == "CONTINUE"
    assert reported(3, float("nan"), spared=True) == "STOP"


# --- the study file --------------------------------------------------------------------------------------------------


def test_a_text_study_minimises_the_validation_loss_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert text_study(tmp_path).objective.metric == "val_loss"
    assert plan(text_study(tmp_path)).space.name == "llm_lora"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, "text is missing; must be given for the trainer llm_lora"),
        ({"text": {"path": "x", "max_lenght": 9}}, "unknown key 'max_lenght'; did you mean 'max_length'?"),
        ({"text": {"path": "x", "format": "chat"}}, "text.format: got 'chat'"),
        ({"text": {"path": "nowhere.jsonl"}}, "does not exist; must be a file"),
        ({"base": "nowhere"}, "base 'nowhere' does not exist; must be a folder in Hugging Face's layout"),
        ({"objective": {"metric": "val_los"}}, "objective.metric: got 'val_los'; did you mean 'val_loss'?"),
        ({"fixed": {"lora_rnk": 8}}, "fixed.lora_rnk: unknown setting; did you mean 'lora_rank'?"),
        ({"fixed": {"effective_batch_size": 6}}, "effective_batch_size: got 6 with batch_size 4; must be a multiple"),
    ],
)
def test_a_mistake_in_a_text_study_is_one_clear_line(tmp_path: Path, changes: dict, message: str) -> None:
    from tune_lora.errors import InputError

    given = text_study(tmp_path).as_mapping() | changes
    with pytest.raises(InputError) as caught:
        plan(spec.from_mapping(given, "test"))
    assert any(message in line for line in str(caught.value).splitlines())


def two_stages() -> StudyRecord:
    def measured(number: int, score: float, stage1: float, stage2: float, provenance: str = "sampler") -> TrialRecord:
        metrics = {"stage1_mae": stage1, "exp_mae": stage2, "fold_1_exp_mae": stage2}
        return dataclasses.replace(trial(number, score, provenance), metrics=metrics)

    trials = measured(0, 1.0, 0.08, 0.30, baseline.PROVENANCE), measured(1, 0.9, 0.10, 0.24)
    return StudyRecord("s", "minimize", trials, spec={"trainer": "two_stage"})


def test_the_trade_between_the_stages_is_told_in_terminal_and_report(tmp_path: Path) -> None:
    record = two_stages()
    told = (
        "against the default, stage-1 error 0.08 → 0.1 (+25.0%), "
        "error of the measured value 0.3 → 0.24 (-20.0%)"
    )  # fmt: skip
    assert wording.stages(record) == told
    assert [one.name for one in baseline.measures(record)] == ["stage1_mae", "exp_mae"]
    assert "stage-1 error 0.08 → 0.1 (+25.0%)" in shown(view.summary(record, tmp_path))
    page = report.render(record, tmp_path)
    assert "tage-1 error 0.08 → 0.1 (+25.0%)" in page
    assert "What both measured" in page


def test_a_study_of_one_stage_has_no_such_trade() -> None:
    record = dataclasses.replace(two_stages(), spec={"trainer": "classifier"})
    assert wording.stages(record) == ""
    assert wording.stages(dataclasses.replace(two_stages(), trials=two_stages().trials[:1])) == ""
