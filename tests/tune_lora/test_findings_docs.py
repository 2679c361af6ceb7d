"""docs/findings.md: its commands and its program run as they stand, and the criteria it names are those there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.tune_lora.test_analysis import criteria, lora, main_of
from tests.tune_lora.test_next_study import CURVE, decades, finished
from tune_lora import spec

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text("utf-8")
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^tune-lora .*$", PAGE, re.MULTILINE)]
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study in results/demo of the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    return finished(tmp_path, CURVE, lambda p: decades(p, 1e-2), name="demo")


def test_its_commands_read_and_go_on(demo: Path) -> None:
    reading = [words[1:] for words in COMMANDS if words[1] != "run"]
    assert [words[0] for words in reading] == ["findings", "findings", "top", "next", "validate"]
    for words in reading:
        main_of(words)
    assert spec.load(demo.parents[1] / "demo-2.yaml").name == "demo-2"


@pytest.mark.slow
def test_the_study_that_it_writes_runs(demo: Path, ray_session: None) -> None:
    for words in COMMANDS:
        main_of(words[1:])
    assert (demo.parent / "demo-2" / "best_config.yaml").is_file()


def test_its_program_runs(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(PROGRAM, "docs/findings.md", "exec"), {})
    assert "importance" in capsys.readouterr().out
    assert spec.load(demo.parents[1] / "demo-3.yaml").name == "demo-3"


def test_it_names_every_criterion() -> None:
    for name, one in criteria(lora(18, 2, 0)).items():
        assert f"| {name} |" in PAGE, one
