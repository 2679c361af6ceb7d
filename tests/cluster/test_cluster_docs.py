"""docs/cluster.md: settings are settings, commands are commands, what it says of ports and files is so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_lora import spec as specs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cluster.md").read_text("utf-8")
SETTINGS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
SHELL = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in SHELL for line in block.splitlines()]
STUDY = {"name": "a", "trainer": "curve", "space": "lora_tiny"}


def test_it_has_blocks_of_both_kinds() -> None:
    assert len(SETTINGS) >= 4 and len(SHELL) >= 5
    assert TEXT.count("```") == 2 * (len(SETTINGS) + len(SHELL)), "a block that nothing checks"


@pytest.mark.parametrize("block", SETTINGS)
def test_settings_are_those_of_a_study(block: str) -> None:
    given: dict[str, Any] = yaml.safe_load(block)
    study = specs.from_mapping({**STUDY, **given}, "docs/cluster.md")
    for section, values in given.items():
        assert values == study.as_mapping()[section] or set(values) <= set(study.as_mapping()[section])


def test_shares_of_gpus_fit_as_it_says() -> None:
    from cluster.capacity import slots
    from cluster.spec import Capacity, TrialResources

    half = specs.from_mapping({**STUDY, **yaml.safe_load(SETTINGS[0])}, "docs/cluster.md").resources
    assert slots(TrialResources(half.cpu, half.gpu or 0), Capacity(64, 8)) == 16
    assert "16 trials on 8 GPUs" in TEXT


@pytest.mark.parametrize("block", SHELL)
def test_bash_can_read_the_commands(block: str) -> None:
    assert subprocess.run(["bash", "-n", "-c", block], capture_output=True).returncode == 0


def option_names(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("ray ")])
def test_ray_knows_its_commands(line: str) -> None:
    from ray.dashboard.modules.job.cli import submit
    from ray.scripts.scripts import get_auth_token

    words = shlex.split(line.partition(" -- ")[0].partition(">")[0])
    command = {"job": submit, "get-auth-token": get_auth_token}[words[1]]
    assert {word for word in words if word.startswith("--")} <= option_names(command)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("tune-lora ")])
def test_tune_lora_knows_its_commands(line: str) -> None:
    from typer.main import get_command

    from tune_lora.cli import app

    words = shlex.split(line)
    commands: Any = get_command(app)
    assert {word for word in words if word.startswith("--")} <= option_names(commands.commands[words[1]])


def test_what_it_says_of_submitting_is_so(tmp_path: Path) -> None:
    from cluster import package, submit

    assert f"may have {package.LIMIT_MIB} MiB" in TEXT and f"Ray's {package.RAYS_LIMIT_MIB}" in TEXT
    assert submit.STOP_SECONDS == 120 and "within two minutes" in TEXT
    named = re.findall(r"`([^`]+)`", TEXT.partition("files whose names are those of secrets (")[2].partition(")")[0])
    assert len(named) > 4
    for name in (*(name.replace("*", "-1") for name in named), ".env", ".netrc", ".git/config", ".aws/credentials"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert package.of_data(tmp_path) == [], "none of these goes along"


def test_what_it_says_of_measuring_is_so() -> None:
    from cluster.capacity import MOST_ON_ONE_GPU

    assert f"at most {MOST_ON_ONE_GPU} share a\nGPU" in TEXT


@pytest.mark.parametrize("line", [line for line in LINES if "cluster/" in line])
def test_templates_that_are_run_are_there_and_can_be(line: str) -> None:
    script = next(word for word in line.split() if word.startswith("cluster/"))
    assert (ROOT / script).stat().st_mode & 0o111


def test_ports_are_those_of_ray() -> None:
    from ray.scripts.scripts import start

    assert set(re.findall(r"`(--[a-z-]*port)`", TEXT)) <= option_names(start)
    defaults = {parameter.name: parameter.default for parameter in start.params}
    assert (defaults["min_worker_port"], defaults["max_worker_port"]) == (10002, 19999)
    assert (defaults["dashboard_host"], defaults["dashboard_port"]) == ("127.0.0.1", 8265)


def test_slurms_dashboard_port_is_as_it_says() -> None:
    script = (ROOT / "cluster" / "slurm" / "study.sbatch").read_text()
    assert "port=$((20000 + SLURM_JOB_ID % 10000))" in script
    assert "--dashboard-port=$((port + 10000))" in script


TRANSCRIPT = (ROOT / "docs" / "cluster_transcript.md").read_text("utf-8")
SAID = [line.removeprefix("$ ") for line in TRANSCRIPT.splitlines() if line.startswith("$ tune-lora ")]


@pytest.mark.parametrize("line", SAID)
def test_the_transcripts_commands_are_still_commands(line: str) -> None:
    test_tune_lora_knows_its_commands(line)


def test_the_transcript_is_of_no_machine_and_shows_the_loss() -> None:
    assert len(SAID) >= 6
    assert "its worker was lost; it goes on from epoch" in TRANSCRIPT
    assert not re.search(r"/(work|home|root|tmp/x)", TRANSCRIPT), "a path of somebody's machine"
    for block in re.findall(r"```bash\n(.*?)```", TRANSCRIPT, re.DOTALL):
        assert subprocess.run(["bash", "-n", "-c", block], capture_output=True).returncode == 0


def test_links_lead_somewhere() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT) if "://" not in link]
    assert links
    assert all((ROOT / "docs" / link).exists() for link in links)
