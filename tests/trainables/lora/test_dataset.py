"""Datasets: what people point the tuner at, and what they get wrong."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"], ids=ascii)
def test_a_line_of_metadata_jsonl_ends_at_a_line_feed_and_nowhere_else(folder, mark):
    lines = [
        json.dumps({"file_name": f"{index}.png", "text": f"caption{mark}{index}"}, ensure_ascii=False)
        for index in range(8)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    found = dataset.load(folder)
    assert {image.caption for image in found.train + found.held_out} == {f"caption{mark}{index}" for index in range(8)}


def test_a_dataset_file_may_begin_with_a_byte_order_mark(folder):
    text = '[[datasets]]\nresolution = 32\n[[datasets.subsets]]\nimage_dir = "."\n'
    (folder / "dataset.toml").write_text(text, "utf-8-sig")
    assert dataset.load(folder).settings.resolution == (32, 32)


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


# --- subsets ---------------------------------------------------------------------------------------------------------

KOHYA = """
[general]
shuffle_caption = true
caption_extension = ".txt"
keep_tokens = 1

[[datasets]]
resolution = [64, 96]
batch_size = 2
keep_tokens = 2

  [[datasets.subsets]]
  image_dir = "faces"
  num_repeats = 10
  flip_aug = true
  caption_dropout_rate = 0.1

  [[datasets.subsets]]
  image_dir = "bodies"
  num_repeats = 3
  shuffle_caption = false
  keep_tokens = 0
  caption_extension = ".caption"
  caption_prefix = "photo of"
  caption_suffix = "in colour"
"""


@pytest.fixture
def two_subsets(tmp_path):
    for name, extension, colour in (("faces", ".txt", 10), ("bodies", ".caption", 200)):
        (tmp_path / name).mkdir()
        for index in range(4):
            picture(tmp_path / name / f"{index}.png", (colour, index * 20, 40))
            (tmp_path / name / f"{index}{extension}").write_text(f"{name}, {index}, c")
    (tmp_path / "dataset.toml").write_text(KOHYA)
    return tmp_path


def by_subset(found):
    return {image.path.parent.name: image for image in (*found.train, *found.held_out)}


def test_each_subset_is_shown_in_its_own_way_and_inner_settings_win(two_subsets):
    found = dataset.load(two_subsets)
    assert found.settings == dataset.DatasetSettings(resolution=(64, 96), batch_size=2)
    shown = {name: image.showing for name, image in by_subset(found).items()}
    assert shown == {
        "faces": dataset.Showing(repeats=10, flip=True, shuffle_caption=True, keep_tokens=2, caption_dropout=0.1),
        "bodies": dataset.Showing(repeats=3),
    }
    assert [by_subset(found)[name].views for name in ("faces", "bodies")] == [2, 1]
    assert by_subset(found)["bodies"].caption.startswith("photo of bodies, ")
    assert by_subset(found)["bodies"].caption.endswith(", c in colour")
    assert found.samples_per_epoch == sum(10 if image.path.parent.name == "faces" else 3 for image in found.train)


def test_what_the_study_says_holds_for_every_subset(two_subsets):
    found = by_subset(dataset.load(two_subsets, {"repeats": 2, "flip": False, "resolution": 32}))
    assert {image.repeats for image in found.values()} == {2}
    assert {image.views for image in found.values()} == {1}
    assert {image.target for image in found.values()} == {(32, 32)}


def test_several_datasets_may_have_resolutions_of_their_own(two_subsets):
    subset = '  [[datasets.subsets]]\n  image_dir = "bodies"'
    text = KOHYA.replace(subset, f"[[datasets]]\nresolution = 32\nbatch_size = 2\n{subset}")
    (two_subsets / "dataset.toml").write_text(text)
    found = by_subset(dataset.load(two_subsets))
    assert {name: image.target for name, image in found.items()} == {"faces": (64, 96), "bodies": (32, 32)}


def test_settings_of_kohya_s_that_ask_for_nothing_are_taken(two_subsets):
    nothing = "random_crop = false\ncolor_aug = false\ntoken_warmup_step = 0\n"
    (two_subsets / "dataset.toml").write_text(KOHYA.replace("[general]\n", "[general]\n" + nothing))
    assert dataset.load(two_subsets).samples_per_epoch


def test_folders_named_after_their_repeats(tmp_path):
    for name in ("10_bobo", "2_others"):
        (tmp_path / name).mkdir()
        for index in range(3):
            picture(tmp_path / name / f"{index}.png", (len(name), index * 20, 40))
    (tmp_path / "10_bobo" / "0.txt").write_text("bobo, smiling")
    found = dataset.load(tmp_path)
    images = [*found.train, *found.held_out]
    assert {(image.path.parent.name, image.repeats) for image in images} == {("10_bobo", 10), ("2_others", 2)}
    assert {image.caption for image in images} == {"bobo, smiling", "bobo", "others"}
    listed = [{"file_name": f"2_others/{index}.png", "text": f"listed {index}"} for index in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, listed)))
    again = dataset.load(tmp_path)
    assert {image.caption for image in (*again.train, *again.held_out)} == {"listed 0", "listed 1", "listed 2"}


def test_a_mark_of_the_byte_order_is_no_part_of_a_caption(folder):
    (folder / "0.txt").write_text("bobo", "utf-8-sig")
    found = dataset.load(folder)
    assert "bobo" in {image.caption for image in (*found.train, *found.held_out)}


def test_class_tokens_stand_where_an_image_has_no_caption(folder):
    (folder / "3.txt").unlink()
    found = dataset.load(folder, {"class_tokens": "bobo"})
    assert {image.caption for image in (*found.train, *found.held_out) if image.path.name == "3.png"} == {"bobo"}


# --- buckets ---------------------------------------------------------------------------------------------------------


def test_images_go_to_the_buckets_of_their_shapes(folder):
    picture(folder / "0.png", size=(300, 100))
    picture(folder / "1.png", size=(100, 200))
    settings = {"resolution": 64, "enable_bucket": True, "bucket_reso_steps": 8, "min_bucket_reso": 32}
    found = dataset.load(folder, settings)
    targets = {image.path.name: image.target for image in (*found.train, *found.held_out)}
    assert targets["0.png"] == (104, 32) and targets["1.png"] == (40, 88) and targets["2.png"] == (64, 64)
    assert found.settings.resolution == (64, 64)
    flat = dataset.load(folder, settings | {"enable_bucket": False})
    assert {image.target for image in (*flat.train, *flat.held_out)} == {(64, 64)}


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_every_kind_of_image_is_read(folder, suffix):
    for path in folder.glob("*.png"):
        Image.open(path).save(path.with_suffix(suffix))
        if suffix != ".png":
            path.unlink(missing_ok=True)
    found = dataset.load(folder)
    assert len(found.train) + len(found.held_out) == 8
    assert {image.path.suffix for image in found.train} == {suffix}
    shown = dataset.pixels(found.train[0].path, (24, 16))
    assert shown.shape == (16, 24, 3) and shown.std() < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_of_every_kind_is_laid_on_white(tmp_path, mode):
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    clear.convert(mode).save(tmp_path / "a.png", **({"transparency": 0} if mode == "P" else {}))
    assert (dataset.pixels(tmp_path / "a.png", 16) == 255).all()


def test_a_lying_photograph_is_seen_upright(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    left_half_black = np.full((40, 80, 3), 255, np.uint8)
    left_half_black[:, :40] = 0
    Image.fromarray(left_half_black).save(folder / "9.jpg", exif=exif, quality=95)
    (folder / "9.txt").write_text("lying")
    found = dataset.load(folder)
    (lying,) = [image for image in (*found.train, *found.held_out) if image.caption == "lying"]
    assert lying.size == (40, 80)
    shown = dataset.pixels(lying.path, (40, 80))
    assert shown[:35].max() < 30 and shown[45:].min() > 225


def test_an_image_is_resized_to_cover_and_cut_around_its_centre(tmp_path):
    stripes = np.zeros((100, 300, 3), np.uint8)
    stripes[:, 100:200] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert dataset.pixels(tmp_path / "a.png", 50)[:, 2:-2].min() >= 253  # the middle third
    whole = dataset.pixels(tmp_path / "a.png", (150, 50))
    assert whole.shape == (50, 150, 3) and whole[:, :45].max() <= 2 and whole[:, 55:95].min() >= 253


# --- the split -------------------------------------------------------------------------------------------------------


def test_copies_of_a_held_out_image_are_held_out_as_well(folder):
    for index in range(8):
        (folder / f"copy-{index}.png").write_bytes((folder / f"{index}.png").read_bytes())
        (folder / f"copy-{index}.txt").write_text("another caption")
    found = dataset.load(folder)
    assert not {image.digest for image in found.train} & {image.digest for image in found.held_out}


# --- captions --------------------------------------------------------------------------------------------------------

TAGS = st.lists(st.text("abcxyz", min_size=1, max_size=4), min_size=1, max_size=8)
SHOWN = st.builds(
    dataset.Showing,
    shuffle_caption=st.booleans(),
    keep_tokens=st.integers(0, 4),
    caption_dropout=st.sampled_from([0.0, 0.3, 1.0]),
    caption_tag_dropout=st.sampled_from([0.0, 0.4, 1.0]),
)


@given(TAGS, SHOWN, st.integers())
def test_a_shown_caption_holds_the_kept_tags_first_and_invents_none(tags, showing, seed):
    shown = dataset.shown_caption(", ".join(tags), showing, random.Random(seed))
    if showing.caption_dropout == 1:
        assert shown == ""
    if shown == "":
        assert showing.caption_dropout or (showing.caption_tag_dropout and showing.keep_tokens == 0)
        return
    found = shown.split(", ")
    kept = tags[: showing.keep_tokens]
    assert found[: len(kept)] == kept
    assert not Counter(found) - Counter(tags)
    if not showing.caption_tag_dropout:
        assert sorted(found) == sorted(tags)
    if not showing.shuffle_caption and not showing.caption_tag_dropout:
        assert found == tags


def test_tags_may_be_separated_by_something_else():
    showing = dataset.Showing(shuffle_caption=True, keep_tokens=1, caption_separator="|")
    shown = dataset.shown_caption("one, two | three | four", showing, random.Random(0))
    assert shown.startswith("one, two, ") and set(shown.split(", ")) == {"one", "two", "three", "four"}


def test_about_as_many_tags_are_dropped_as_was_said():
    showing, rng = dataset.Showing(caption_tag_dropout=0.25, keep_tokens=1), random.Random(0)
    left = [len(dataset.shown_caption("k, a, b, c, d", showing, rng).split(", ")) - 1 for _ in range(2000)]
    assert np.mean(left) == pytest.approx(3, abs=0.1)
