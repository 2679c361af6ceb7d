"""Images that the project draws: the demo's data set, and what the small backbone is pre-trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.classification import backbones, demo, drawing, pretrain
from trainables.classification.data import read
from trainables.classification.source import DataSource


def test_the_demo_is_a_data_set_with_captions_that_do_not_tell_everything(tmp_path: Path) -> None:
    found = read(DataSource(demo.write_dataset(tmp_path, count=60), text="text", group="background"))
    assert found.classes == demo.CLASSES and len(found) == 60
    assert np.bincount(found.labels).tolist() == [10] * 6
    assert set(found.groups) == set(demo.BACKGROUNDS)
    told = [found.classes[label] in text for label, text in zip(found.labels, found.texts, strict=True)]
    assert 0.4 < np.mean(told) < 0.9


def test_the_same_arguments_draw_the_same_bytes(tmp_path: Path) -> None:
    one, other = (demo.write_dataset(tmp_path / name, count=6) for name in "ab")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.parametrize("shape", list(drawing.SHAPES))
def test_a_shape_stands_where_it_was_put(shape) -> None:
    share = drawing.mask(shape, 64, (40.0, 24.0), 16.0, 33.0)
    rows, columns = np.nonzero(share)
    assert share.max() == 1.0 and 0.05 < share.sum() / (np.pi * 16**2) <= 1.01
    assert abs(columns - 40).max() <= 17 and abs(rows - 24).max() <= 17


def test_pre_training_images_are_new_each_step_and_answers_are_in_range() -> None:
    images, answers = pretrain.batch(3, 8, 32)
    again, _ = pretrain.batch(3, 8, 32)
    other, _ = pretrain.batch(4, 8, 32)
    assert images.shape == (8, 3, 32, 32) and torch.equal(images, again) and not torch.equal(images, other)
    sizes = [*(len(names) for names in pretrain.QUESTIONS.values()), pretrain.SECTORS]
    assert (answers < torch.tensor(sizes)).all() and (answers >= 0).all()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_command_writes_weights_that_fit_the_narrow_backbone(suffix, tmp_path: Path, capsys) -> None:
    output = tmp_path / f"mini{suffix}"
    asked = ["--output", str(output), "--steps", "3", "--batch-size", "8", "--image-size", "16", "--widths", "4_8"]
    pretrain.main(asked)
    card = json.loads(capsys.readouterr().out)
    assert card["images"] == 24 and set(card["accuracy"]) == {*pretrain.QUESTIONS, "angle"}
    backbone, _ = backbones.build("resnet_mini", "4_8")
    said = backbones.fill(backbone, backbones.load_state(output), "resnet_mini", output.name)
    assert said.startswith(f"{len(backbone.state_dict())} tensors")


def test_pre_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    student = pretrain.Student("16_32")
    before = pretrain.accuracy(student, seed=10**6, count=200, size=24)
    pretrain.train(student, steps=150, batch_size=32, size=24, rate=5e-3, minutes=5)
    after = pretrain.accuracy(student, seed=10**6, count=200, size=24)
    assert after["hue"] > before["hue"] + 0.15
