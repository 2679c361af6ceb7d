"""docs/team_report.md: its mistakes are those that are made, and its way from an untracked study to a report works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.tune_lora.test_tracking_docs import STUDY, tune_lora
from tests.wandb_server import WandbServer
from tune_lora.records import StudyRecord
from tune_lora.team_report import _leaders, _publish, _search
from tune_lora.team_report._page import NOTES, page
from tune_lora.team_report._parts import Heading

PAGE = (Path(__file__).parents[2] / "docs" / "team_report.md").read_text("utf-8")


def test_it_names_every_part_of_the_report(example: Any) -> None:
    from tests.tune_lora.test_team_report import NOW, there

    record: StudyRecord = example.record
    found = page(record, there(record), "results/glow", NOW, {})
    headings = [block.text for block in found.blocks if isinstance(block, Heading) and block.level == 1]
    said = PAGE.lower()
    assert len(headings) == 12 and NOTES.heading in headings
    assert [one for one in headings if one.lower() not in said] == []


def test_its_numbers_and_mistakes_are_those_of_the_code() -> None:
    assert (_leaders.TOP, _search.AXES) == (5, 10) and "the ten most important\n   hyperparameters" in PAGE
    folder = Path("results/demo")
    for made in (_publish._offline(3, folder), _publish._untracked(folder)):
        shown = re.search(r"must be uploaded first: wandb sync|the study was not tracked", made)
        assert shown is not None and shown[0] in PAGE
    assert "`3 runs are on disk only; must be uploaded first: wandb sync ...`" in PAGE


@pytest.mark.slow
def test_a_study_that_was_not_tracked_has_a_report_after_the_command_that_is_told(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces; pip install 'tune-lora[wandb-report]'")
    (tmp_path / "study.yaml").write_text(STUDY.replace("wandb: auto", 'wandb: "off"'))
    with WandbServer() as server:
        tune_lora(tmp_path, server, "run", "study.yaml")
        with pytest.raises(AssertionError, match="the study was not tracked") as refused:
            tune_lora(tmp_path, server, "report", "results/rates", "--wandb")
        command = re.findall(r"goes on: tune-lora (resume [^\n]*?wandb=online)", str(refused.value))[0]
        tune_lora(tmp_path, server, *shlex.split(command))
        assert len(server.runs) == 5, "the earlier trials' runs follow"
        said = tune_lora(tmp_path, server, "report", "results/rates", "--wandb")
        again = tune_lora(tmp_path, server, "report", "results/rates", "--wandb")
        (view,) = server.views.values()
    assert not server.mistakes
    assert said.startswith(f"made: {server.url}/team/tune-lora/reports/Study-rates--")
    assert again == said.replace("made", "brought up to date") and view.saved == 2
