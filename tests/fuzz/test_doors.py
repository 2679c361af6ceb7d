"""Unspoilt, every input is right: so the doors are really those that lead in."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import command_line, doors, model_files, samples, yaml_files
from benchmarks.fuzz.judging import Door, judge

PICTURES = {name: content for name, content in samples.pictures().items() if name.endswith(".png")}
STUDY = {"study.yaml": yaml_files.as_yaml(samples.CURVE)}
VALID: list[tuple[Door, samples.Files]] = [
    (doors.document, {"document.yaml": b"a: [1, 2]"}),
    (doors.overridden, {**STUDY, "arguments.json": b'["budget.n_trials=3"]'}),
    (doors.configuration, {**STUDY, "best_config.yaml": yaml_files.as_yaml(samples.CURVE_CONFIG)}),
    (doors.images, samples.pictures()),
    (doors.listing, {**PICTURES, "metadata.jsonl": samples.lines(samples.METADATA)}),
    (doors.table, {"table.csv": samples.TABLE}),
    (doors.molecules, {"table.csv": samples.CHI.encode()}),
    *((doors.text, {"text.jsonl": samples.lines(rows)}) for rows in samples.ROWS),
    (doors.base, {"base.safetensors": samples.safetensors(*samples.checkpoint())}),
    (doors.lora, {"lora.safetensors": samples.safetensors(*samples.lora())}),
    (doors.expression, {"expression.txt": b"network_dim >= 64 and learning_rate < 5"}),
]


@pytest.mark.parametrize(("door", "files"), VALID, ids=lambda one: getattr(one, "__name__", "files"))
def test_what_is_not_spoilt_is_right(door: Door, files: samples.Files, tmp_path: Path) -> None:
    outcome = judge(door, samples.write(tmp_path, files))
    assert (outcome.what, outcome.said) == ("right", "")


def test_shipped_spaces_and_studies_are_right(root: Path, tmp_path: Path) -> None:
    assert len(samples.spaces()) > 10 and len(samples.studies(root)) > 10
    for space in samples.spaces():
        samples.write(tmp_path, {"space.yaml": yaml_files.as_yaml(space)})
        assert judge(doors.space, tmp_path).what == "right", space["name"]
    for study in samples.studies(root):
        samples.write(tmp_path, {"study.yaml": yaml_files.as_yaml(study)})
        assert judge(doors.study, tmp_path).what == "right", study["name"]


def test_a_dataset_file_is_right(tmp_path: Path) -> None:
    images = {f"images/{name}": content for name, content in samples.pictures().items()}
    files = samples.write(tmp_path, {"dataset.toml": yaml_files.as_toml(samples.TOML).encode(), **images})
    assert judge(doors.toml, files).what == "right"


def test_of_checkpoints_the_newest_whole_one_is_gone_on_from(root: Path, tmp_path: Path) -> None:
    files = model_files.written_checkpoints(root)
    newest = max(name for name in files if name.endswith("curve.json"))
    samples.write(tmp_path, {**files, newest: b'{"epoch": 7}'})
    assert judge(doors.checkpoint, tmp_path).what == "right"  # goes on from the older one
    held = b'{"epoch": 7}'
    known = {"curve.json": [len(held), hashlib.sha256(held).hexdigest()]}
    sealed = samples.as_json({"incarnation": 0, "files": known})  # as if it had been written so
    samples.write(tmp_path, {newest.replace("curve.json", ".manifest.json"): sealed})
    assert "never written" in judge(doors.checkpoint, tmp_path).said


@pytest.mark.parametrize(
    ("kind", "files", "what"),
    [
        ("study", STUDY, "right"),
        ("study", {"study.yaml": b"name: [\x1b"}, "refused"),
        ("configuration", {**STUDY, "best_config.yaml": b"learning_rate: fast"}, "refused"),
    ],
)
def test_the_program_itself_is_judged_alike(kind: str, files: samples.Files, what: str, tmp_path: Path) -> None:
    assert command_line.judge(kind, samples.write(tmp_path, files)).what == what


def test_a_program_that_shows_a_traceback_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert command_line.judge("study", samples.write(tmp_path, STUDY)).what == "unclear"
