"""docs/lora.md: its table has every option there is, its study is valid, its commands exist."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from trainables.lora.settings import IMAGE_RULES, EngineSettings
from tune_lora import build
from tune_lora import spec as specs
from tune_lora.cli import app

TEXT = (Path(__file__).parents[3] / "docs" / "lora.md").read_text("utf-8")
OPTIONS = dict(re.findall(r"^\| `([a-z_.A-Z]+)` \| .* \|\s*([^|]*?)\s*\|$", TEXT, re.MULTILINE))
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
STUDIES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_every_option_is_in_the_table_and_nothing_else():
    assert {name.replace(".BLOCK", ".*") for name in OPTIONS} == set(IMAGE_RULES)


def test_defaults_are_those_of_the_engine():
    settings = EngineSettings()
    shared = [name for name in OPTIONS if hasattr(settings, name)]
    assert len(shared) > 8
    for name in shared:
        value = getattr(settings, name)
        assert OPTIONS[name] == (value if isinstance(value, str) else f"{value:g}"), name


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study["name"])
def test_its_study_is_valid(study, monkeypatch, tmp_path):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path))
    ready = build.plan(specs.from_mapping(study, "docs/lora.md"))
    assert {"use_dora", "conv_dim"} <= set(ready.space.parameters)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_exist(command):
    program, name, *words = command.split()
    known = get_command(app).commands
    assert program == "tune-lora" and name in known
    options = {option for parameter in known[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_there_is_something_to_test():
    assert STUDIES and len(COMMANDS) > 3
