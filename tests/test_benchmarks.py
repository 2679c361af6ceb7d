"""Figures: the verdict follows from the numbers, and the page says what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import common, render

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize(
    ("measured", "goal", "ok"),
    [
        (1.0, ">= 1", True),
        (0.999, ">= 1", False),
        (0.3, "<= 0.333", True),
        (0.333, "< 0.333", False),
        (6.1, "<= 6", False),
        (-0.5, "> -1", True),
        (None, ">= 1", None),
        (1.0, None, None),
    ],
)
def test_the_verdict_follows_from_the_numbers(measured: float | None, goal: str | None, ok: bool | None) -> None:
    made = common.result("share", measured=measured, goal=goal, unit="share", runs=1)
    assert made["ok"] is ok
    assert set(made) == {"name", "measured", "goal", "ok", "unit", "runs", "command", "machine", "note"}


@given(measured=st.floats(-1e6, 1e6), goal=st.integers(-1000, 1000))
def test_a_direction_and_its_opposite_never_agree(measured: float, goal: int) -> None:
    assert common.is_reached(measured, f">= {goal}") is not common.is_reached(measured, f"< {goal}")
    assert common.is_reached(measured, f"<= {goal}") is not common.is_reached(measured, f"> {goal}")


def test_a_goal_without_a_direction_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"got '0\.25'; must be one of"):
        common.is_reached(1.0, "0.25")


def test_files_are_read_back_onto_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "QUICK", False)
    common.write("a", [common.result("share", measured=0.1, goal=">= 0.25", unit="share", runs=3, note="of all")])
    monkeypatch.setattr(common, "QUICK", True)
    common.write("a", [common.result("quick_share", measured=0.9, goal=">= 0.25", unit="share", runs=1)])
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.quick.json"}
    text = render.page(render.load(tmp_path))
    assert "| `share` | 0.1 | >= 0.25 | **no** | share |" in text
    assert "3 runs" in text
    assert "Of all." in text
    assert "quick_share" not in text


def test_a_page_of_nothing_claims_nothing() -> None:
    assert "Nothing has been measured yet" in render.page([])


def test_docs_are_made_from_the_committed_files() -> None:
    assert render.PAGE.read_text("utf-8") == render.page(render.load(common.RESULTS)), (
        "run `python -m benchmarks.render`"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_verdict_was_typed_in(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    for one in content if isinstance(content, list) else [content]:
        assert one["ok"] is common.is_reached(one["measured"], one["goal"])


def test_slots_are_counted_from_when_all_are_filled() -> None:
    from benchmarks.slots_busy import Ran, busy_share

    early = [Ran(1, [(0.0, 1.0)]), Ran(1, [(1.0, 2.0)])]  # one worker runs two trials before the other is there
    filled = [Ran(1, [(2.0, 6.0)]), Ran(2, [(2.0, 3.0), (4.0, 5.0)]), Ran(2, [(6.0, 7.0)])]
    share, seconds = busy_share(early + filled, slots=2)
    assert seconds == 4.0
    assert share == (4.0 + 2.0) / (2 * 4.0)
