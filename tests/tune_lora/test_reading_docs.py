"""docs/reading.md: its program runs as it stands, its search finds, and it names every figure of the report."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tune_lora import report
from tune_lora.report import _thumbnails

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text("utf-8")
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_its_program_writes_the_report(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(example.folder, tmp_path / "results" / "demo")
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAM, "docs/reading.md", "exec"), {})
    assert Path(capsys.readouterr().out.strip()).read_text("utf-8").startswith("<!doctype html>")


def test_it_names_every_figure(example: Any) -> None:
    titles = re.findall(r'id="of-[a-z]+">([^<]+)<', report.render(example.record, example.folder))
    assert len(titles) == 8
    for title in titles:
        assert f"| {title.lower()} |" in PAGE


def test_its_numbers_are_those_of_the_code() -> None:
    assert (_thumbnails.LARGE_FOR, _thumbnails.TRIALS - _thumbnails.LARGE_FOR) == (10, 290)
    assert f"share {_thumbnails.BYTES // 1_000_000} MB" in PAGE
