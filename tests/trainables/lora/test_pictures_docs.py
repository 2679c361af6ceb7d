"""docs/pictures.md: its study file and its dataset file work as they stand, and its tables hold what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from PIL import Image

from trainables.lora import dataset, kohya_toml
from trainables.lora.dataset_settings import NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "pictures.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_study_is_valid(tmp_path, monkeypatch):
    from tune_lora import build, spec

    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path))
    ready = build.plan(spec.from_mapping(yaml.safe_load(block("yaml")), "docs/pictures.md"))
    images = ready.trainer.load_dataset()
    assert images.settings.resolution == (64, 96)


def test_the_dataset_file_is_read_as_it_stands(tmp_path):
    (tmp_path / "dataset.toml").write_text(block("toml"))
    for name, size in (("faces", (64, 64)), ("bodies", (64, 128))):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("RGB", size, (index * 50, len(name), 0)).save(tmp_path / name / f"{index}.png")
            if name == "faces":
                (tmp_path / name / f"{index}.txt").write_text("bobo, smiling")
    found = dataset.load(tmp_path)
    images = [*found.train, *found.held_out]
    assert {(image.path.parent.name, image.repeats, image.views) for image in images} == {
        ("faces", 10, 2), ("bodies", 3, 1)}  # fmt: skip
    assert len({image.target for image in images}) == 2


def test_the_table_holds_every_setting_under_both_names():
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 4]
    ours, kohyas = set(), set()
    for our_cell, kohya_cell in rows:
        mine = re.findall(r"`(\w+)`", our_cell)
        ours.update(mine)
        kohyas.update(mine if "the same" in kohya_cell else re.findall(r"`(\w+)`", kohya_cell))
    assert ours == NAMES
    assert kohyas == kohya_toml.SETTINGS
    assert set(tomllib.loads(block("toml"))["general"]) <= kohyas
