"""The command line as a person meets it: what it prints, where, and how it exits. Run as a program."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.main import get_command

from search_spaces.space import Space
from trainables import demo_character
from tune_lora import build, spec, store
from tune_lora.cli import app

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]  # it is a group
CURVES = {
    "name": "curves",
    "trainer": "curve",
    "space": {
        "name": "rates",
        "parameters": {
            "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
            "max_train_epochs": {"type": "categorical", "choices": [3, 4]},
        },
    },
    "search": {"n_startup_trials": 2, "seed": 5},
    "budget": {"n_trials": 3, "plateau": None},
    "resources": {"cpu": 1, "concurrent": 2},
    "tracking": {"wandb": "off"},
}


def tune_lora(*arguments: object, folder: Path | None = None, answers: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tune_lora.cli", *map(str, arguments)],
        cwd=folder,
        input=answers,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def refused(*arguments: object) -> list[str]:
    """The lines on stderr of a command that must end with exit code 2, print nothing and show no traceback."""
    ended = tune_lora(*arguments)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    lines = ended.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), ended.stderr
    return lines


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my own character!")
    demo_character.write_dataset(folder, count=6, size=64)
    (folder / "dataset.toml").unlink()
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a study of three trials that was run as a person runs it, and what that printed."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "study.yaml").write_text(yaml.safe_dump(CURVES))
    return folder / "results" / "curves", tune_lora("run", "study.yaml", folder=folder)


def test_every_command_promised_is_there() -> None:
    promised = {"run", "validate", "sample", "status", "resume", "top", "plot", "train", "generate", "evaluate", "init"}
    assert promised <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_the_command_itself(command: str) -> None:
    ended = tune_lora(command, "--help")
    assert ended.returncode == 0
    example = re.search(r"Example: tune-lora (\S+)", ended.stdout)
    assert example is not None
    assert example[1] == command


def test_a_study_runs_to_its_end_and_says_what_it_left(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, ended = ran
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    record = store.load(folder)
    assert len(record.trials) == 3
    assert f"best: trial {record.best.number}" in ended.stdout
    assert "report.html" in ended.stdout


def test_a_folder_that_was_moved_goes_on_where_it_lies_now(
    ran: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder, _ = ran
    copy = shutil.copytree(folder, tmp_path / "moved" / "curves")
    before = store.load(copy)
    more = tune_lora("resume", copy, "--n-trials", "+2")
    assert more.returncode == 0, more.stderr
    after = store.load(copy)
    assert len(after.trials) == len(before.trials) + 2
    assert [t.value for t in after.trials[:3]] == [t.value for t in before.trials]
    assert len(store.load(folder).trials) == 3, "the folder it was copied from was touched"


def test_the_best_configuration_trains_on_with_more_epochs(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    ended = tune_lora("train", "--config", folder / "best_config.yaml", "--epochs", 6, "--output", folder / "longer")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == [f"[{epoch}/6]" for epoch in range(1, 7)]
    assert re.fullmatch(r"trained: score 0\.\d+", lines[-2]) and lines[-1] == str(folder / "longer")
    again = refused("train", folder, "--output", folder)
    assert again == [f"error: {folder} exists and is kept; remove it, or name another folder with --output"]


def test_status_and_top_read_a_study_without_its_files(example) -> None:
    status, top = tune_lora("status", example.folder), tune_lora("top", example.folder / "study.db", "-n", 3)
    assert (status.returncode, top.returncode) == (0, 0), status.stderr + top.stderr
    best = example.record.ranked()
    assert f"trial {best[0].number}" in status.stdout
    numbers = re.findall(r"^ *\d+ +(\d+) ", top.stdout, re.MULTILINE)
    assert numbers == [str(trial.number) for trial in best[:3]]
    assert "(ratio " in top.stdout


def test_plot_draws_what_is_asked(example, tmp_path: Path) -> None:
    ended = tune_lora("plot", example.folder, "--kind", "slice", "--kind", "contour", "--output", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"slice.png", "contour.png"}
    assert ended.stdout.split() == [str(tmp_path / "slice.png"), str(tmp_path / "contour.png")]
    assert "slice" in refused("plot", example.folder, "--kind", "slices", "--output", tmp_path)[0]


def test_plot_shows_the_hyperparameters_that_are_named(example, tmp_path: Path) -> None:
    named = ("--plot-type", "contour", "--params", "learning_rate", "network_dim", "--output", tmp_path)
    ended = tune_lora("plot", example.folder, *named)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(tmp_path / "contour.png")]
    lines = refused("plot", example.folder, "--plot-type", "slice", "--params", "learning_rat", "dim")
    assert len(lines) == 2 and "did you mean 'learning_rate'?" in lines[0]


def test_a_study_that_has_run_is_not_continued_with_other_settings(ran) -> None:
    folder, _ = ran
    (line,) = refused("run", folder / "study.yaml", "--set", "learning_rate=1e-3", "--set", f"results={folder.parent}")
    assert "was made with other settings (fixed.learning_rate: None -> 0.001)" in line


def test_suggestions_one_object_a_line() -> None:
    ended = tune_lora("sample", "lora_v2_1", "-n", 30, "--format", "jsonl", "--seed", 3)
    assert ended.returncode == 0
    assert ended.stderr == ""
    configs = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(configs) == 30
    space = Space.load("lora_v2_1")
    for config in configs:
        assert config["network_alpha"] == int(config["network_dim"] * config["network_alpha_ratio"])
        assert space.violations(config) == []
    assert tune_lora("sample", "lora_v2_1", "-n", 30, "--format", "jsonl", "--seed", 3).stdout == ended.stdout


def test_suggestions_of_a_study_file_as_a_table() -> None:
    ended = tune_lora("sample", Path(__file__).parents[2] / "search_spaces" / "studies" / "demo.yaml", "-n", 4)
    assert ended.returncode == 0, ended.stderr
    assert "(ratio " in ended.stdout
    assert [line.split()[0] for line in ended.stdout.splitlines() if re.match(r" *\d+ ", line)] == ["1", "2", "3", "4"]


def test_init_writes_a_study_that_is_valid(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    ended = tune_lora("init", images, "--yes", "--n-trials", 7, "--output", path)
    assert ended.returncode == 0, ended.stderr
    ready = build.plan(spec.load(path))
    assert ready.spec.budget.n_trials == 7
    assert Path(ready.spec.dataset.path) == images.resolve()
    assert f"tune-lora run {path}" in ended.stdout
    assert path.read_text().count("#") > 8
    assert refused("init", images, "--yes", "--output", path) == [
        f"error: {path} exists and is kept; remove it, or name another file with --output"
    ]


def test_init_asks_unless_told_not_to(images: Path) -> None:
    ended = tune_lora("init", images, answers="\n11\n")
    assert ended.returncode == 0, ended.stderr
    assert spec.load(images / "study.yaml").budget.n_trials == 11
    assert tune_lora("validate", images / "study.yaml").returncode == 0


def test_a_lora_is_trained_and_draws(images: Path, tmp_path: Path) -> None:
    study, config, trained = tmp_path / "study.yaml", tmp_path / "config.yaml", tmp_path / "trained"
    assert tune_lora("init", images, "--yes", "--output", study).returncode == 0
    space = Space.load("lora_tiny")
    config.write_text(yaml.safe_dump(space.resolve(space.defaults())))
    ended = tune_lora("train", study, "--config", config, "--epochs", 1, "--output", trained)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == str(trained)
    picture = tmp_path / "drawn.png"
    words = ("--prompt", "bobo, side view", "--prompt", "bobo, frontal view")
    drawn = tune_lora("generate", trained, *words, "-n", 2, "--steps", 2, "--output", picture)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(picture) as image:
        assert image.width >= 2 * 64
        assert len(set(image.convert("RGB").getdata())) > 50
    (line,) = refused("generate", trained / "lora" / "lora.safetensors")
    assert "no prompts are known" in line
    (line,) = refused("generate", trained, "--size", "100x64")
    assert line.startswith("error: --size: got '100x64'; must be such as 512 or 512x768")
    sheet = tmp_path / "sheet.png"
    scored = tune_lora("evaluate", trained, "-n", 2, "--output", sheet)
    assert scored.returncode == 0, scored.stderr
    assert "rank 8, alpha 4 (ratio 0.500)" in scored.stdout and "untrained base" in scored.stdout
    assert f"sheet: {sheet}" in scored.stdout and sheet.is_file()


def test_every_mistake_of_a_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("name: wrong\nspcae: lora_tiny\nspace: lora_tiny\ntrainer: curve\nbudget:\n  n_trials: 0\n")
    lines = refused("validate", path)
    assert sorted(line.split(": ")[1] for line in lines) == [f"{path}:2", f"{path}:6"]
    assert "did you mean 'space'?" in "".join(lines)
    assert refused("run", path) == lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "absent.yaml"), "does not exist"),
        (("sample", "lora_v2"), "unknown space 'lora_v2'"),
        (("sample", "absent.yaml"), "cannot be read"),
        (("status", "absent"), "does not exist"),
        (("top", "."), "no study.db"),
        (("resume", "absent"), "does not exist"),
        (("train",), "nothing to train"),
        (("train", "--config", "absent.yaml"), "no study.yaml beside it"),
        (("generate", "absent"), "does not exist"),
        (("evaluate", "absent"), "does not exist"),
        (("evaluate", "absent.safetensors"), "does not exist"),
        (("init", "absent", "--yes"), "does not exist"),
    ],
)
def test_what_is_not_there_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (line,) = refused(*arguments)
    assert said in line


def test_binary_rubbish_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rubbish.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80" * 20)
    for command in ("run", "validate", "sample"):
        (line,) = refused(command, path)
        assert "not UTF-8 text" in line


@pytest.mark.alone
def test_ctrl_c_ends_with_its_own_code_says_so_and_the_study_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    slow = CURVES | {"curve": {"seconds": 0.5}, "results": str(tmp_path), "scheduler": {"name": "none"}}
    file.write_text(yaml.safe_dump(slow))
    command = [sys.executable, "-m", "tune_lora.cli", "run", str(file)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list((tmp_path / "curves").glob("trials/*/checkpoint/0*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    printed, complaints = running.communicate(timeout=90)
    assert running.returncode == 130
    assert "stopped: interrupted" in printed and "Traceback" not in complaints
    assert store.load(tmp_path / "curves").count("running") > 0
    assert tune_lora("resume", tmp_path / "curves").returncode == 0
    assert [trial.state for trial in store.load(tmp_path / "curves").trials] == ["complete"] * 3


def test_a_place_that_cannot_be_written_is_one_line(example, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = tune_lora("plot", example.folder, "--kind", "slice", "--output", tmp_path / "file" / "below")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and len(ended.stderr.splitlines()) == 1


def test_a_folder_with_a_number_for_a_name_gets_a_study_that_is_valid(images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(images, tmp_path / "2024", ignore=shutil.ignore_patterns("*.yaml"))
    assert tune_lora("init", folder, "--yes").returncode == 0
    assert spec.load(folder / "study.yaml").name == "2024"


def test_a_metric_that_nobody_measures_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(CURVES | {"objective": {"metric": "scoer"}}))
    (line,) = refused("validate", file)
    assert "objective.metric: got 'scoer'; did you mean 'score'" in line


def test_a_configuration_whose_names_are_no_words_is_refused(tmp_path: Path) -> None:
    study, config = tmp_path / "study.yaml", tmp_path / "config.yaml"
    study.write_text(yaml.safe_dump(CURVES))
    config.write_text("learning_rate: 0.001\n7: 3\n")
    (line,) = refused("train", study, "--config", config, "--output", tmp_path / "out")
    assert "got the name 7" in line
