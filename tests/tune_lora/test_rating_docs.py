"""docs/rating.md and docs/dashboard.md: their commands exist, their settings are settings, their program runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from tests.tune_lora import rated
from tune_lora import build, pairs, rate, rating_commands, ratings, spec, taste
from tune_lora.cli import app
from tune_lora.preferences import LEVEL
from tune_lora.rank_agreement import ENOUGH

DOCS = Path(__file__).parents[2] / "docs"
RATING, DASHBOARD = ((DOCS / f"{name}.md").read_text("utf-8") for name in ("rating", "dashboard"))
COMMANDS = re.findall(r"^tune-lora (.+)$", RATING + DASHBOARD, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_known(command: str) -> None:
    name, *words = command.split()
    known = get_command(app).commands[name]  # type: ignore[attr-defined]  # it is a group
    options = {option for parameter in known.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 3


def test_options_that_are_named_are_known() -> None:
    known = get_command(app).commands["rate"]  # type: ignore[attr-defined]  # it is a group
    named = set(re.findall(r"`(--[a-z-]+)", RATING))
    assert named and named <= {option for parameter in known.params for option in parameter.opts}


def test_the_settings_are_those_of_a_study() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", RATING, re.DOTALL)
    given = {"name": "next", "dataset": {"path": "demo-character"}, "space": "lora_tiny", **yaml.safe_load(block)}
    asked = build.plan(spec.from_mapping(given, "docs/rating.md")).spec
    assert asked.objective.weights["preference"] == 0.3 and asked.objective.preference is not None


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", RATING, re.DOTALL)
    folder = rated.study(tmp_path / "results" / "milo", 3)
    ratings.Ratings(folder).judge(2, 0, "left", "anna")
    ratings.keep(folder)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "docs/rating.md", "exec"), {})
    lines = printed.getvalue().splitlines()
    assert lines[0].startswith("2 ") and lines[-1] == "too few to say None"


def test_numbers_are_those_of_the_code() -> None:
    assert rate.TOP == 12 and "twelve best" in RATING and "= 12" in Path(rating_commands.__file__).read_text("utf-8")
    assert pairs.PER_TRIAL == 3 and "three pairs a trial" in RATING
    assert pairs.REPEAT_EVERY == 6 and "one pair in six" in RATING
    assert ENOUGH == 8 and "below 8 trials" in RATING
    assert LEVEL == 0.9 and "holds 90%" in RATING
    assert taste._SHUFFLES == 1_999 and "1,999" in RATING
    assert taste.CHANCE == 0.05 and "once in twenty" in RATING
