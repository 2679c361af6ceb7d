"""Inputs that once ended in a traceback, a hang or an unclear line, each with what is said of it now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz import doors, model_files, samples, yaml_files
from benchmarks.fuzz.broken_images import png
from benchmarks.fuzz.judging import Door, judge
from trainables import checkpoints

STUDY = samples.CURVE
CURVE = {"study.yaml": yaml_files.as_yaml(STUDY)}
CONFIG = yaml_files.as_yaml(samples.CURVE_CONFIG)
DEEP = "[" * 5_000
ENDLESS = f"learning_rate: {10**400}".encode()
DIGITS = "9" * 5_000


def study(**changed: Any) -> samples.Files:
    return {"study.yaml": yaml_files.as_yaml({**STUDY, **changed})}


def space(**changed: Any) -> samples.Files:
    return {"space.yaml": yaml_files.as_yaml({**STUDY["space"], **changed})}


def given(*arguments: str) -> samples.Files:
    return {**CURVE, "arguments.json": json.dumps(arguments).encode()}


def toml(**changed: Any) -> samples.Files:
    document = {**samples.TOML, "datasets": [{**samples.TOML["datasets"][0], **changed}]}
    images = {f"images/{name}": content for name, content in samples.pictures(3).items()}
    return {"dataset.toml": yaml_files.as_toml(document).encode(), **images}


def trained(record: Any) -> samples.Files:
    before = {"trained/study.yaml": CURVE["study.yaml"], "trained/training.json": samples.as_json(record)}
    return {**CURVE, "best_config.yaml": CONFIG, **before}


FOUND: list[tuple[str, Door, samples.Files, str]] = [
    ("key called like a type", doors.study, study(int=1), "unknown key 'int'"),
    ("infinite share of a GPU", doors.overridden, given("resources.gpu=.inf"), "resources.gpu: got inf"),
    ("path too long", doors.overridden, given(f"base={'x' * 5_000}"), "which can be none"),
    ("space with a null byte", doors.overridden, given('space="a\\0"'), "unknown space"),
    ("home of nobody", doors.overridden, given("base=~nobody-at-all/x"), "which can be none"),
    ("space too long", doors.overridden, given(f"space={'x' * 5_000}"), "unknown space"),
    ("space of nobody", doors.overridden, given("space=~nobody-at-all"), "unknown space"),
    ("argument of many lines", doors.overridden, given("y\n" * 300), r"--set: got 'y\ny"),
    ("stratify by a number", doors.space, space(stratify=0.5), "stratify: got 0.5, must be a list"),
    ("name that turns the writing", doors.study, study(**{"\u202eevil": 1}), r"unknown key '\u202eevil'"),
    ("record of nothing", doors.configuration, trained({"params": "x", "seed": 1}), "exists and is kept"),
    ("rate of a word", doors.configuration, {**CURVE, "best_config.yaml": b"learning_rate: fast"}, "got 'fast'"),
    ("rate of 0", doors.configuration, {**CURVE, "best_config.yaml": b"learning_rate: 0"}, "must be a number above 0"),
    ("rate without end", doors.configuration, {**CURVE, "best_config.yaml": ENDLESS}, "learning_rate: got 1000"),
    ("steps larger than pictures", doors.toml, toml(bucket_reso_steps=2**31), "bucket_reso_steps"),
    ("buckets without end", doors.toml, toml(max_bucket_reso=2**40), "must be a multiple of 8 from 16 to 8192"),
    ("a picture of a wall", doors.toml, toml(resolution=2**20), "must be a multiple of 8 from 16 to 2048"),
    ("TOML of brackets", doors.toml, {**toml(), "dataset.toml": f"a = {DEEP}".encode()}, "is not TOML"),
    ("TOML of digits", doors.toml, {**toml(), "dataset.toml": f"a = {DIGITS}".encode()}, "is not TOML"),
    ("caption of digits", doors.images, {**samples.pictures(), "metadata.jsonl": DIGITS.encode()}, "must be a JSON"),
    ("caption of brackets", doors.images, {**samples.pictures(), "metadata.jsonl": DEEP.encode()}, "must be a JSON"),
    ("listing of brackets", doors.listing, {**samples.pictures(), "metadata.jsonl": DEEP.encode()}, "must be a JSON"),
    ("text of brackets", doors.text, {"text.jsonl": DEEP.encode()}, "is nested too deeply"),
    ("text of digits", doors.text, {"text.json": DIGITS.encode()}, "is not JSON"),
    ("rows missing", doors.images, {**samples.pictures(3), "3.png": png(9000, 2, b"\0" * 10), "3.txt": b"x"}, "3.png"),
    ("too many pixels", doors.images, {**samples.pictures(3), "3.png": png(9600, 9600), "3.txt": b"x"}, "9600 x 9600"),
    ("ragged row in Latin-1", doors.table, {"table.csv": b"id,temp\na,1\n\xe9,2,3\n"}, "table.csv"),
    ("column of two lines", doors.text, {"text.csv": b'"a\nb",c\n1,2\n'}, r"got the columns a\nb, c"),
    ("number beside a word", doors.expression, {"expression.txt": b"1if x == 4else 0 + 'a'"}, "cannot be evaluated"),
    ("nots without end", doors.expression, {"expression.txt": b"not " * 3_000 + b"1"}, "is not an expression"),
]


@pytest.mark.parametrize(("door", "files", "said"), [one[1:] for one in FOUND], ids=[one[0] for one in FOUND])
def test_what_was_found_is_refused_in_clear_lines(
    door: Door, files: samples.Files, said: str, tmp_path: Path, root: Path
) -> None:
    outcome = judge(door, samples.write(tmp_path.resolve(), files))
    assert outcome.what == "refused", outcome.said
    assert said in outcome.said


MANIFESTS = [{"incarnation": float("inf"), "files": {}}, {"incarnation": 0, "files": {"a": [1]}}]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_that_says_nothing_is_damage(manifest: Any, tmp_path: Path, root: Path) -> None:
    folder = samples.write(tmp_path, model_files.written_checkpoints(root))
    samples.write(folder, {"checkpoint/00000002/.manifest.json": samples.as_json(manifest)})
    found, damaged = checkpoints.restorable(folder)
    assert found is not None and found.budget == 1
    assert len(damaged) == 1 and "00000002 is damaged" in damaged[0]
