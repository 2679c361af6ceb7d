"""Figures, tables and the picture say what the rows say; the committed ones come from the committed rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.search import picture, plan, runs, statistics, tables
from benchmarks.search.figures import FIGURES
from benchmarks.search.measures import Measures
from benchmarks.search.runs import Key, Row

PLAN = replace(plan.FULL, tasks=plan.FULL.tasks[:2], seeds=range(10, 12), slow_seeds=range(10, 11))
REGRETS = {"tpe1": 0.24, "auto": 0.1, "tpe": 0.2, "mobster": 0.22, "refusing": 0.3}
"""At the end, by method; from 8 trainings to 40 it is 0.02 more."""


def row(key: Key) -> Row:
    regret = REGRETS.get(key.method, 0.4) + {"bad-priors": 0.03, "failing": -0.01}.get(key.variant, 0.0)
    workers = key.told_workers
    trace = ((8.0 / workers, 8.0, regret + 0.02), (40.0 / workers, 40.0, regret))
    return Row(key, trace, 60, (0.2, 0.04), 25 if key.method == "refusing" else 0, 0, (0.1, 0.2, 0.3), 1.0)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Measures:
    """Every run of the plan, with figures that are known."""
    monkeypatch.setattr(statistics, "DRAWS", 50)
    return Measures({key: row(key) for group in plan.GROUPS for key in group.keys(PLAN)}, PLAN)


def test_figures_are_those_of_the_rows(found: Measures) -> None:
    made = {figure.name: figure.result(found) for figure in FIGURES}
    assert len(made) == len(FIGURES)
    expected = {
        "search_tpe_k50": 0.2,
        "search_tpe_wall": 0.04,  # two units of wall time on four workers, of TPE's 50
        "search_k20": 0.12,
        "search_k50": 0.1,
        "search_wall_share": 0.04,
        "search_wall_share_w8": 0.02,
        "search_priors_k20": 0.12,
        "search_bad_priors": 0.03,
        "search_constrained_wasted": 0.0,
        "search_constrained": 0.2,
        "search_constrained_low": 0.2,
        "search_failures": 0.04,
        "search_failures_regret": -0.01,
        "search_vs_mobster": 0.12,
    }
    assert {name: made[name]["measured"] for name in expected} == pytest.approx(expected)
    assert made["search_k20"]["ok"] and not made["search_tpe_k50"]["ok"] and not made["search_bad_priors"]["ok"]
    assert made["search_vs_mobster"]["runs"] == 2 and made["search_k50"]["runs"] == 4


def test_what_was_never_reached_or_run_has_no_figure(found: Measures) -> None:
    slow = {
        key: replace(one, trace=((2.0, 8.0, 0.9),)) if key.method == "tpe" else one for key, one in found.rows.items()
    }
    without = {key: one for key, one in slow.items() if key.method != "mobster"}
    made = {figure.name: figure.result(Measures(without, PLAN)) for figure in FIGURES}
    for name in ("search_tpe_wall", "search_vs_mobster"):
        assert made[name]["measured"] is None and made[name]["ok"] is None
    json.dumps(list(made.values()), allow_nan=False)


def test_tables_stand_between_their_markers_and_nothing_else_changes(found: Measures, tmp_path: Path) -> None:
    page = tmp_path / "search.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n", encoding="utf-8")
    tables.write(found, page)
    first = page.read_text("utf-8")
    assert first.startswith(f"before\n{tables.BEGIN}\n") and first.endswith(f"{tables.END}\nafter\n")
    assert (
        "| tune-lora `sampler: auto` | .120 (.120 to .120) | .100 (.100 to .100) | .040 (.040 to .040) | 4 |" in first
    )
    assert "old" not in first
    tables.write(found, page)
    assert page.read_text("utf-8") == first


def test_a_page_without_markers_is_left_alone(found: Measures, tmp_path: Path) -> None:
    page = tmp_path / "search.md"
    page.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="got no markers"):
        tables.write(found, page)
    assert page.read_text("utf-8") == "mine"


def test_the_picture_is_drawn(found: Measures, tmp_path: Path) -> None:
    picture.draw(found, tmp_path / "images" / "regret.png")
    assert (tmp_path / "images" / "regret.png").read_bytes().startswith(b"\x89PNG")


def test_committed_figures_come_from_committed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    path = common.RESULTS / "search.json"
    if not path.exists():
        pytest.skip("the figures have not been made yet")
    monkeypatch.setattr(statistics, "DRAWS", 1)
    measures = Measures(runs.load(), plan.FULL)
    committed = {one["name"]: one for one in json.loads(path.read_text("utf-8"))}
    assert set(committed) == {figure.name for figure in FIGURES}
    for figure in FIGURES:
        made, kept = figure.result(measures), committed[figure.name]
        assert (made["runs"], made["goal"]) == (kept["runs"], kept["goal"])
        if "lower end" not in figure.note:  # an interval takes thousands of draws
            assert made["measured"] == kept["measured"], f"{figure.name}: run `make bench-search`"
