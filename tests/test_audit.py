"""The audit of dependencies is a report: it says what it found or that it could not ask, and never fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "audit.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    return tmp_path


def audit(project: Path, tool: str | None) -> str:
    programs = project / "programs"
    programs.mkdir()
    if tool is not None:
        (programs / "pip-audit").write_text(f'#!/bin/sh\necho "$@" >{project}/asked\n{tool}\n')
        (programs / "pip-audit").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    ended = subprocess.run(["scripts/audit.sh"], cwd=project, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout.strip().splitlines()[-1] in (project / "build" / "audit.txt").read_text()
    return ended.stdout


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("exit 0", "audit: nothing known against the "),
        ("echo 'Found 1 known vulnerability in 1 package'; echo 'jinja2 1.0 CVE-1'; exit 1", "jinja2 1.0 CVE-1"),
        ("echo 'Found 1 known vulnerability in 1 package'; exit 1", "audit: read the list above"),
        ("echo 'ConnectionError'; exit 1", "audit: not done: pip-audit could not ask"),
        ("exit 3", "audit: not done: pip-audit ended with 3"),
    ],
)
def test_what_was_found_is_told(tool: str, said: str, project: Path) -> None:
    assert said in audit(project, tool)
    assert "--requirement requirements.lock" in (project / "asked").read_text()


def test_without_the_tool_it_says_that_nothing_was_asked(project: Path) -> None:
    assert "audit: not done: pip-audit is not installed" in audit(project, None)
