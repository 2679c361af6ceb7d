"""Base, winner and real images in one picture."""

import dataclasses

from PIL import Image

from tune_lora import figures, store


def grid(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 20), colour).save(path)


def record(**changes):
    best = store.TrialRecord(
        3, "complete", 0.1, {}, {}, images={2: {"epoch 2": "trials/3/2.png"}, 4: {"epoch 4": "trials/3/4.png"}}
    )
    base = {"base": "base/base.png", "reference": "base/reference.png"}
    return dataclasses.replace(store.StudyRecord("s", "minimize", (best,), base_images=base), **changes)


def test_base_above_the_winners_last_images_above_real_ones(tmp_path):
    for name, colour in {
        "base/base.png": "red", "trials/3/2.png": "black", "trials/3/4.png": "lime", "base/reference.png": "blue",
    }.items():  # fmt: skip
        grid(tmp_path / name, colour)
    picture = Image.open(figures.comparison(record(), tmp_path))
    colours = [picture.getpixel((5, top)) for top in (5, 33, 61)]
    assert colours == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_without_a_winner_or_a_base_there_is_none(tmp_path):
    grid(tmp_path / "base/base.png", "red")
    assert figures.comparison(record(trials=()), tmp_path) is None
    assert figures.comparison(record(base_images={}), tmp_path) is None
    assert figures.comparison(record(), tmp_path) is None  # the winner's file is gone
    assert not list(tmp_path.glob("*.png"))
