"""The README: its commands exist, its links lead somewhere, its pictures are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line.removeprefix("$ ").strip()
    for block in re.findall(r"```(?:console|bash|sh|shell)\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]
LINKS = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if "://" not in link and not link.startswith("#")]


def test_it_shows_the_two_commands() -> None:
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(command: str) -> None:
    target = next(word for word in command.split()[1:] if "=" not in word)
    ended = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if "tune-lora " in c])
def test_the_command_line_knows_its_commands(command: str) -> None:
    from typer.main import get_command

    from tune_lora.cli import app

    words = command.partition("tune-lora ")[2].split("#")[0].split()
    known = get_command(app)
    assert words[0].startswith("-") or words[0] in known.commands  # type: ignore[attr-defined]  # it is a group
    if not words[0].startswith("-"):
        options = {name for parameter in known.commands[words[0]].params for name in parameter.opts}  # type: ignore[attr-defined]
        asked = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        assert asked <= options | {"--help"}


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link.partition("#")[0]).exists()


def test_there_is_something_to_test() -> None:
    assert len(COMMANDS) >= 4
    assert LINKS
