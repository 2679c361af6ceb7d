"""Datasets: what people point the tuner at, and what they get wrong."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.lora import dataset
from tune_lora.errors import InputError, InputErrors


def picture(path, colour=(200, 30, 30), size=(40, 40), mode="RGB"):
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for index in range(8):
        picture(tmp_path / f"{index}.png", (index * 20, 90, 40))
        (tmp_path / f"{index}.txt").write_text(f"bobo, mood {index}, 3d render\n")
    return tmp_path


def test_a_plain_folder_is_split_into_training_and_held_out_images(folder):
    found = dataset.load(folder, held_out_share=0.25)
    assert (len(found.train), len(found.held_out)) == (6, 2)
    assert not {image.path for image in found.train} & {image.path for image in found.held_out}
    assert found.train[0].caption.startswith("bobo, mood")


def test_the_split_follows_the_content_not_the_names(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("renamed")
    for index in range(8):
        (folder / f"{index}.png").rename(other / f"image-{7 - index}.png")
        (folder / f"{index}.txt").rename(other / f"image-{7 - index}.txt")
    moved = dataset.load(other, seed=3)
    assert {image.caption for image in moved.held_out} == {
        image.caption for image in dataset.split(moved.train + moved.held_out, 0.125, 3)[1]
    }


def test_captions_come_from_metadata_jsonl_where_it_is(folder):
    lines = [json.dumps({"file_name": f"{index}.png", "text": f"caption {index}"}) for index in range(8)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    found = dataset.load(folder)
    assert all(image.caption.startswith("caption") for image in found.train + found.held_out)


def test_a_kohya_toml_sets_batch_repeats_and_shuffling(folder):
    (folder / "dataset.toml").write_text(
        "[general]\nshuffle_caption = true\nkeep_tokens = 1\n[[datasets]]\nresolution = 32\nbatch_size = 3\n"
        '[[datasets.subsets]]\nimage_dir = "."\nnum_repeats = 2\n'
    )
    found = dataset.load(folder)
    assert found.settings == dataset.DatasetSettings(resolution=(32, 32), batch_size=3)
    assert {image.showing for image in found.train} == {dataset.Showing(repeats=2, shuffle_caption=True, keep_tokens=1)}
    assert found.samples_per_epoch == 2 * len(found.train)
    assert dataset.load(folder, {"batch_size": 1}).settings.batch_size == 1


def test_shuffling_keeps_the_first_tags_and_loses_none():
    showing = dataset.Showing(shuffle_caption=True, keep_tokens=1)
    shown = dataset.shown_caption("bobo, a, b, c", showing, random.Random(1))
    assert shown.startswith("bobo, ")
    assert sorted(shown.split(", ")) == ["a", "b", "bobo", "c"]


def test_transparency_is_laid_on_white(tmp_path):
    picture(tmp_path / "a.png", (0, 0, 0, 0), mode="RGBA")
    assert (dataset.pixels(tmp_path / "a.png", 16) == 255).all()


def test_pixels_are_square_and_sized(tmp_path):
    picture(tmp_path / "wide.png", size=(90, 40))
    assert dataset.pixels(tmp_path / "wide.png", 24).shape == (24, 24, 3)
    assert dataset.pixels(tmp_path / "wide.png", 24).dtype == np.uint8


def test_every_bad_file_is_named_in_one_pass(folder):
    (folder / "1.txt").unlink()
    (folder / "2.png").write_bytes(b"no image at all")
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes()[:20])
    with pytest.raises(InputErrors) as caught:
        dataset.load(folder)
    assert len(caught.value.mistakes) == 3
    assert "1.txt" in caught.value.mistakes[0] and "must have" in caught.value.mistakes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets]]\nresolutoin = 64\n", "did you mean 'resolution'"),
        ("[[datasets]]\nresolution = -1\n", "must be a multiple of 8 from 16"),
        ("[[datasets]]\nresolution = 60\n", "must be a multiple of 8 from 16"),
        ("[[datasets]]\nresolution = [[1], [1]]\n", "must be a multiple of 8 from 16"),
        ("[[datasets]]\nbatch_size = true\n", "batch_size is True; must be a whole number from 1"),
        ("[[datasets]]\nsubsets = 3\n", "subsets is 3; must be tables"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\ncaption_extension = 7\n', "must be a dot and letters"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "."\nflip_aug = "maybe"\n', "must be true or false"),
        ('[general]\ncaption_dropout_rate = "x"\n[[datasets]]\n', "must be a share from 0 to 1"),
        ("[general\n", "is not TOML"),
        ("[general]\nkeep_tokens = 1\n", "must be one or more tables"),
        ('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "nowhere"\n', "is not a folder"),
        ("[[datasets]]\nenable_bucket = true\nmin_bucket_reso = 128\n", "min_bucket_reso is 128; must be at most"),
        ("[[datasets]]\nenable_bucket = true\nmax_bucket_reso = 32\n", "max_bucket_reso is 32; must be at least"),
        ("[[datasets]]\nenable_bucket = true\nbucket_reso_steps = 128\n", "bucket_reso_steps is 128; must be at most"),
        ("[[datasets]]\nrandom_crop = true\n", "random_crop = True is not supported; must be left out"),
        ("[[datasets]]\nbatch_size = 2\n[[datasets]]\nbatch_size = 3\n", "batch_size differs between datasets"),
    ],
)
def test_a_wrong_toml_is_one_clear_line(folder, text, message):
    (folder / "dataset.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        dataset.load(folder)


def test_metadata_may_not_point_outside_its_folder(folder):
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "../../etc/passwd", "text": "x"}))
    with pytest.raises(InputErrors, match="outside the dataset's folder"):
        dataset.load(folder)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_said(tmp_path, count):
    for index in range(count):
        picture(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("x")
    with pytest.raises(InputError, match="must hold"):
        dataset.load(tmp_path)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        dataset.load(tmp_path / "nowhere")


def test_a_jpeg_cut_off_by_a_broken_download_is_found_before_anything_starts(folder):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    whole = folder / "whole.jpg"
    Image.fromarray(noise).save(whole)
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:-5000])
    for name in ("whole", "cut"):
        (folder / f"{name}.txt").write_text("noise")
    with pytest.raises(InputErrors) as caught:
        dataset.load(folder)
    assert [Path(line.partition(": ")[0]).name for line in caught.value.mistakes] == ["cut.jpg"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "is not UTF-8"), (b'{"file_name": "\\u0000", "text": "a"}', "no file name")]
)
def test_wrong_bytes_in_metadata_are_one_clear_line(folder, content, message):
    (folder / "metadata.jsonl").write_bytes(content)
    with pytest.raises(InputErrors, match=message):
        dataset.load(folder)


def test_a_caption_extension_without_its_dot_is_refused(folder):
    with pytest.raises(InputErrors, match="caption_extension is 'txt'; must be a dot and letters"):
        dataset.load(folder, {"caption_extension": "txt"})
