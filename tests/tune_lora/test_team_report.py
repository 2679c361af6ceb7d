"""What a team report says, and that nothing in it means more than it says. Nothing of W&B's but its own blocks."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trainables.protocol import Cause
from tune_lora import tracking_messages, wording
from tune_lora.errors import one_line
from tune_lora.records import Objective, StudyRecord, TrialRecord
from tune_lora.team_report import _markdown, page
from tune_lora.team_report._notes import with_notes
from tune_lora.team_report._page import NOTES
from tune_lora.team_report._parts import (
    Axis,
    Bullets,
    Callout,
    Code,
    Comparer,
    Heading,
    Link,
    Page,
    Panels,
    Paragraph,
    Parallel,
    Pictures,
    Scatter,
    Table,
    each_text,
)
from tune_lora.team_report._place import There
from tune_lora.tracking import run_id

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
EVIL = "<script>x</script> [a](http://evil) ![b](http://evil) **c** `d` | e\n# f $g$ www.evil.com"


def there(record: StudyRecord, *others: str, uploaded: int | None = None) -> There:
    """Where its runs are, the first `uploaded` ones or all."""
    runs = {run_id("t", trial.number) for trial in record.trials[:uploaded]}
    return There("https://wandb.example/", "team", "tune-lora", record.name, "t", frozenset(runs | set(others)))


def made(record: StudyRecord, place: There | None = None) -> Page:
    return page(record, place or there(record), "results/glow", NOW, {})


def section(found: Page, heading: str) -> list[Any]:
    """The blocks between a heading and the next one of its level."""
    texts = [block.text if isinstance(block, Heading) and block.level == 1 else None for block in found.blocks]
    begin = texts.index(heading) + 1
    end = next((at for at in range(begin, len(texts)) if texts[at] is not None), len(texts))
    return list(found.blocks[begin:end])


def words(part: Any) -> str:
    """All text of a part."""
    said: list[str] = []
    each_text(tuple(part) if isinstance(part, list) else part, lambda text: said.append(text) or text)
    return " ".join(said)


def table(blocks: list[Any]) -> Table:
    return next(block for block in blocks if isinstance(block, Table))


def test_it_says_all_of_it_in_order(example: Any) -> None:
    found = made(example.record)
    assert [block.text for block in found.blocks if isinstance(block, Heading) and block.level == 1] == [
        "Summary",
        "Can the winner be trusted?",
        "Best against baseline and reference",
        "What the study says",
        "The top 5",
        "How the search went",
        "Which hyperparameters matter",
        "Rung survival",
        "Failures by cause",
        "Cost",
        "What to do next",
        NOTES.heading,
    ]
    assert found.title == "Study glow"
    (facts, *_) = section(found, "Summary")
    assert facts.lines[0] == ("24 trials: 10 completed, 9 pruned, 4 failed, 1 running",)
    assert found.description.endswith("not verified; as of 2026-03-01 12:00 UTC")


def test_its_first_words_are_the_recommendation_and_its_caveats(example: Any) -> None:
    record = example.record
    first, *caveats = [block for block in made(record).blocks if isinstance(block, Callout)]
    assert first.line[0] == "Recommended: " and first.line[1].text == f"trial {record.best.number}"
    assert first.line[1].url == f"https://wandb.example/team/tune-lora/runs/{run_id('t', record.best.number)}"
    assert [words(one).partition(":")[0] for one in caveats] == ["Uncalibrated", "Not verified"]
    trust = section(made(record), "Can the winner be trusted?")
    assert Code("tune-lora verify results/glow") in trust[0].line


def test_the_winner_stands_beside_reference_and_untrained_base(example: Any) -> None:
    record = example.record
    blocks = section(made(record), "Best against baseline and reference")
    rows = table(blocks).rows
    assert [row[0] for row in rows] == ["winner", "trial_3_5", "untrained base"]
    gain = 100 * (record.trials[0].value - record.best.value) / record.trials[0].value
    assert rows[1][3] == f"{gain:+.1f}%"
    runs = next(block for block in blocks if isinstance(block, Panels))
    assert runs.panels == (Comparer(),)
    assert runs.runs.ids == (run_id("t", record.best.number), run_id("t", 0))


def test_the_top_five_and_their_pictures(example: Any) -> None:
    record = example.record
    blocks = section(made(record), "The top 5")
    leaders = [trial.number for trial in record.ranked()[:5]]
    assert [int(row[0].text) for row in table(blocks).rows] == leaders
    grid = next(block for block in blocks if isinstance(block, Panels))
    assert grid.panels == (Pictures("images"),)
    assert list(grid.runs.ids) == [run_id("t", number) for number in leaders]


def test_the_search_is_drawn_from_names_that_runs_have(example: Any) -> None:
    (panels,) = section(made(example.record), "How the search went")
    assert (panels.runs.group, panels.runs.ids) == ("glow", ())
    scatter, curves, parallel = panels.panels
    assert isinstance(scatter, Scatter) and isinstance(parallel, Parallel)
    assert (scatter.x, scatter.y) == (Axis("config", "trial.number"), Axis("summary", "value"))
    assert scatter.best_so_far == "min"
    assert (curves.x, curves.metric) == ("budget", "score")
    names = {axis.name for axis in parallel.axes}
    assert names == {*example.record.parameter_names, "value"}
    assert {axis.name for axis in parallel.axes if axis.is_log} == {"learning_rate", "text_encoder_lr"}


def test_rungs_failures_and_cost_add_up(example: Any) -> None:
    record, found = example.record, made(example.record)
    rungs = table(section(found, "Rung survival")).rows
    assert sum(int(row[2]) for row in rungs) == record.count("pruned")
    assert [int(row[1]) for row in rungs] == [
        sum(trial.last_budget >= int(row[0]) for trial in record.trials) for row in rungs
    ]
    failures = section(found, "Failures by cause")
    assert isinstance(failures[0], Bullets) and len(failures[0].lines) == 4
    assert any("asked for 1.2 GiB" in words(line) and Link("12", there(record).link(12).url) in line
               for line in failures[0].lines)  # fmt: skip
    cost = table(section(found, "Cost")).rows
    assert int(cost[-1][1]) == sum(int(row[1]) for row in cost[:-1]) == len(record.trials)


def test_findings_are_there_each_with_what_to_type(example: Any) -> None:
    from tune_lora import analysis

    (told, *_) = section(made(example.record), "What the study says")
    assert isinstance(told, Bullets) and len(told.lines) == len(analysis.findings(example.record))
    typed = [one.text for line in told.lines for one in line if isinstance(one, Code)]
    assert "tune-lora resume results/glow --n-trials +20" in typed
    assert not [one for one in typed if "RESULTS" in one]


def test_a_verified_winner_is_told_with_its_interval(example: Any) -> None:
    from tune_lora.verification import Verification, judge

    record = example.record
    leaders = record.ranked()[:3]
    values = {one.number: {seed: 0.2 + at / 100 + seed / 1000 for seed in (1, 2, 3)} for at, one in enumerate(leaders)}
    verdict = judge("checkpoint", leaders, values, {}, (1, 2, 3), "minimize")
    kept = Verification("score", "minimize", 0.9, len(record.trials), (3, 3), "2026-03-01", (verdict,)).as_dict()
    found = made(dataclasses.replace(record, verification=kept))
    rows = table(section(found, "Can the winner be trusted?")).rows
    assert [int(row[0].text) for row in rows] == [one.number for one in leaders]
    assert "not verified" not in found.description and "verified: trial" in found.description
    first = table(section(found, "Best against baseline and reference")).rows[0]
    assert first[0] == "winner"
    assert first[2] == wording.number(record.winner.value), "as its neighbours: by the search's own measure"
    assert "not verified" not in words([block for block in found.blocks if isinstance(block, Callout)]).lower()


def a_trial(number: int, state: Any = "complete", **changes: Any) -> TrialRecord:
    rate = 10 ** (-4 + number / 10)
    told: dict[str, Any] = {
        "value": number / 10 if state == "complete" else None, "params": {"optimizer.lr": rate},
        "config": {"optimizer.lr": rate}, "history": {1: {"val_loss": 0.5}}, "curve": {1: 0.5}, "seconds": 2.0,
    }  # fmt: skip
    return TrialRecord(number, state, **{**told, **changes})


SPACE = {"name": "s", "parameters": {"optimizer.lr": {"type": "loguniform", "low": 1e-5, "high": 1e-1}}}


def a_study(*trials: TrialRecord, **changes: Any) -> StudyRecord:
    return StudyRecord("s", changes.pop("direction", "minimize"), trials, spec={"space": SPACE}, **changes)


def test_several_objectives_each_have_their_figures() -> None:
    objectives = (Objective("val_loss"), Objective("speed", "maximize"))
    trials = [a_trial(number, value=None, values=(number / 10, float(number % 5))) for number in range(8)]
    found = made(a_study(*trials, objectives=objectives))
    (panels,) = section(found, "How the search went")
    scatters = [panel for panel in panels.panels if isinstance(panel, Scatter)]
    assert [(one.y.name, one.best_so_far) for one in scatters] == [("value/val_loss", "min"), ("value/speed", "max")]
    assert table(section(found, "The top 5")).head[1:3] == ("val_loss (minimized)", "speed (maximized)")
    assert "Pareto front" in words(section(found, "The top 5"))


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((), "No winner yet"),
        ((a_trial(0, "running"),), "No winner yet"),
        ((a_trial(0, "failed", cause=Cause.NAN_LOSS, message="NaN at epoch 1"),), "NaN at epoch 1"),
        ((a_trial(0),), "Recommended: "),
    ],
)
def test_a_study_that_has_hardly_begun_has_a_report(trials: tuple[TrialRecord, ...], said: str) -> None:
    assert said in words(made(a_study(*trials)))


def test_a_run_that_is_not_there_is_not_linked(example: Any) -> None:
    record = example.record
    found = made(record, there(record, uploaded=0))
    assert "https://" not in words(found)
    assert not [block for block in found.blocks if isinstance(block, Panels)]


def test_runs_of_an_earlier_study_of_its_name_are_kept_out(example: Any) -> None:
    record = example.record
    (panels,) = section(made(record, there(record, "0123456789abcdef")), "How the search went")
    assert panels.runs.group == ""
    assert set(panels.runs.ids) == {run_id("t", trial.number) for trial in record.trials}


def test_secrets_are_taken_out(example: Any) -> None:
    record = example.record
    trials = [dataclasses.replace(one, message="s3 said: hunter2-hunter2 is wrong") for one in record.trials]
    found = page(
        dataclasses.replace(record, trials=tuple(trials)), there(record), "results/glow", NOW,
        {"AWS_SECRET_ACCESS_KEY": "hunter2-hunter2"},
    )  # fmt: skip
    assert "hunter2" not in words(found) and "s3 said: *** is wrong" in words(found)


# --- text that anybody may have written ------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.text() | st.sampled_from([EVIL, "a|b", "\\|", "&lt;", "<!--", "1. x", "~~~", "http://a.b", "a@b.c"]))
def test_a_cell_is_text_whatever_it_holds(text: str) -> None:
    shown = _markdown.table(Table(("name",), ((text,), ("end",))))
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(shown)
    assert [token.type for token in tokens].count("tr_open") == 3 and tokens[-1].type == "table_close"
    cells = [token for token in tokens if token.type == "inline"]
    assert [one.content for one in cells][2] == "end"
    assert {child.type for one in cells for child in one.children or ()} <= {"text", "text_special"}
    told = "".join(child.content for child in cells[1].children or ())
    assert told == one_line(text).strip() or told.split() == one_line(text).split()


def test_a_cell_makes_no_link_of_an_address() -> None:
    shown = _markdown.escaped("http://evil.example www.evil.example me@evil.example")
    assert not re.search(r"(https?://|www\.|\w@\w)", shown)


def test_a_link_is_the_only_thing_that_leads_anywhere() -> None:
    shown = _markdown.table(Table(("trial",), ((Link("1]2", "https://wandb.example/runs/a"),),)))
    tokens = MarkdownIt("commonmark").enable("table").parse(shown)
    links = [child for token in tokens for child in token.children or () if child.type == "link_open"]
    assert [link.attrs["href"] for link in links] == ["https://wandb.example/runs/a"]


def test_numbers_stay_legible() -> None:
    assert _markdown.escaped("0.131 to -1.5e-4, 12%") == "0.131 to -1.5e-4, 12%"


def test_names_and_messages_are_never_markup(example: Any) -> None:
    record = example.record
    trials = [
        dataclasses.replace(one, message=EVIL, provenance=f"prior:{EVIL}" if one.number == 0 else one.provenance,
                            config={**one.config, EVIL: EVIL}) for one in record.trials
    ]  # fmt: skip
    found = made(dataclasses.replace(record, trials=tuple(trials)))
    for block in found.blocks:
        if isinstance(block, Table):
            tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(_markdown.table(block))
            inline = [child for token in tokens for child in token.children or ()]
            assert not {"html_inline", "image", "em_open", "strong_open", "code_inline"} & {one.type for one in inline}
            leads = {str(one.attrs["href"]) for one in inline if one.type == "link_open"}
            assert all(one.startswith("https://wandb.example/team/tune-lora/runs/") for one in leads)


# --- what people write -----------------------------------------------------------------------------------------------


def heading(text: str) -> dict[str, Any]:
    return {"type": "heading", "level": 1, "children": [{"text": text}]}


def paragraph(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "paragraph", "children": [{"text": text, **more}]}


FRESH = {"blocks": [paragraph("numbers"), heading(NOTES.heading), paragraph(NOTES.line), paragraph("")], "version": 5}


@given(st.lists(st.builds(paragraph, st.text(max_size=5), bold=st.booleans()), max_size=4), st.integers(1, 3))
def test_notes_stay_as_they_were_written_however_often_it_is_made_again(written: list[Any], times: int) -> None:
    report = {**FRESH, "blocks": [*FRESH["blocks"][:-1], *written], "discussionThreads": [{"id": "1"}]}
    for _ in range(times):
        report = with_notes(FRESH, report, NOTES)
    kept = written or [paragraph("")]
    assert report["blocks"] == [*FRESH["blocks"][:-1], *kept]
    assert report["discussionThreads"] == [{"id": "1"}]


def test_a_note_stays_when_the_line_above_it_was_deleted() -> None:
    report = {"blocks": [heading(NOTES.heading), paragraph("mine")]}
    assert with_notes(FRESH, report, NOTES)["blocks"][-1] == paragraph("mine")


def test_without_the_heading_nothing_is_carried_over() -> None:
    assert with_notes(FRESH, {"blocks": [paragraph("old numbers")]}, NOTES)["blocks"] == FRESH["blocks"]


# --- as blocks of W&B -------------------------------------------------------------------------------------------------


def test_a_name_with_dots_is_found_where_runs_have_it() -> None:
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces; pip install 'tune-lora[wandb-report]'")
    from tune_lora.team_report import _blocks

    panel = _blocks._panel(Parallel("p", (Axis("config", "optimizer.lr", is_log=True), Axis("summary", "value"))))
    told = panel._to_model().model_dump(by_alias=True)["config"]["columns"]
    assert [column["accessor"] for column in told] == ["config:optimizer.lr.value", "summary:value"]
    assert told[0]["log"] is True
    assert "optimizer.lr" in tracking_messages.config(a_study(a_trial(0)), a_trial(0))


@pytest.mark.parametrize("block", [Paragraph((EVIL,)), Callout((EVIL,)), Bullets(((EVIL,),)), Heading(EVIL)])
def test_text_of_a_block_is_one_piece_of_text(block: Any) -> None:
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces; pip install 'tune-lora[wandb-report]'")
    from tune_lora.team_report import _blocks

    (given,) = _blocks.blocks_of([block], "team", "project")
    found = str(given._to_model().model_dump(by_alias=True, exclude_none=True))
    assert "'type': 'link'" not in found
    assert repr(one_line(EVIL))[1:-1] in found
