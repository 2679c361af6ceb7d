"""Latents and text states on disk: never stale, right when damaged or made by two processes at once."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainables.lora import tiny_bases
from trainables.lora import base, cache, dataset, entries
from trainables.lora.dataset import Showing

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny_bases.write_folder(name, root / name) for name in tiny_bases.FAMILIES}


@pytest.fixture
def model(folders):
    return base.load(str(folders["sd15"]), CPU)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Six images of three shapes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for index, (width, height) in enumerate([(64, 64), (128, 64), (64, 128), (64, 64), (128, 64), (64, 128)]):
        Image.fromarray(draw.integers(0, 255, (height, width, 3), np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    return folder


BUCKETS = {"resolution": 64, "enable_bucket": True, "bucket_reso_steps": 8}


def images_of(folder, **settings):
    found = dataset.load(folder, BUCKETS | settings)
    return (*found.train, *found.held_out)


def entry_files(kind) -> list[Path]:
    return sorted((Path(os.environ["TUNE_LORA_CACHE"]) / kind).glob("*.safetensors"))


@pytest.fixture
def encoded(monkeypatch):
    """How many buckets were encoded."""
    calls = []
    encode = cache._encode
    monkeypatch.setattr(cache, "_encode", lambda *arguments: calls.append(1) or encode(*arguments))
    return calls


@torch.no_grad()
def test_each_image_is_encoded_at_the_size_of_its_bucket(model, pictures):
    images = images_of(pictures, flip=True)
    found = cache.latents(model, images)
    for row, image in enumerate(images):
        array = torch.from_numpy(dataset.pixels(image.path, image.target)).permute(2, 0, 1).float() / 127.5 - 1
        for view, shown in enumerate((array, array.flip(-1))):
            posterior = model.vae.encode(shown[None]).latent_dist
            drawn = found.sample([row], [view], torch.Generator().manual_seed(3))
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3))
            expected = (posterior.mean + posterior.std * noise) * model.vae.config.scaling_factor
            torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-5)
            assert drawn.shape[2:] == (image.target[1] // 8, image.target[0] // 8)


def test_the_groups_are_the_buckets_and_a_batch_of_several_is_a_mistake(model, pictures):
    images = images_of(pictures)
    found = cache.latents(model, images)
    groups = found.groups()
    assert sorted(row for group in groups for row in group) == list(range(len(images)))
    assert [len({images[row].target for row in group}) for group in groups] == [1, 1, 1]
    with pytest.raises(ValueError, match="are of 2 buckets; must be of one"):
        found.sample([groups[0][0], groups[1][0]], [0, 0], torch.Generator())


def test_only_images_that_are_flipped_have_a_mirrored_view(model, pictures):
    images = images_of(pictures, enable_bucket=False)
    mixed = [dataclasses.replace(image, showing=Showing(flip=row % 2 == 0)) for row, image in enumerate(images)]
    found = cache.latents(model, mixed)
    assert len(found.means[0]) == sum(image.views for image in mixed) == 9
    plain = cache.latents(model, mixed, mirrored=False)
    assert torch.equal(plain.mean(range(6)), found.mean(range(6)))
    assert len(plain.means[0]) == 6


def test_what_sdxl_is_told_belongs_to_the_shown_view(model, pictures):
    images = images_of(pictures, enable_bucket=False, flip=True)
    found = cache.latents(model, images)
    wide = next(row for row, image in enumerate(images) if image.size == (128, 64))
    assert found.time_ids([wide, wide], [0, 1]).tolist() == [[64, 128, 0, 32, 64, 64]] * 2


def test_latents_are_made_once_and_of_changed_buckets_only(model, pictures, encoded):
    for _ in range(2):
        cache.latents(model, images_of(pictures))
    assert len(encoded) == 3
    cache.latents(model, images_of(pictures, repeats=7, shuffle_caption=True))  # nothing that changes pixels
    assert len(encoded) == 3
    wide = pictures / "1.png"
    Image.fromarray(255 - np.asarray(Image.open(wide))).save(wide)
    cache.latents(model, images_of(pictures))
    assert len(encoded) == 4
    cache.latents(model, images_of(pictures, flip=True))
    assert len(encoded) == 7


@pytest.mark.parametrize("damage", [lambda whole: whole[:100], lambda whole: whole[:-4] + b"\0\0\0@", lambda _: b""])
def test_a_damaged_entry_is_made_again(damage, model, pictures, encoded):
    images = images_of(pictures)
    first = cache.latents(model, images)
    expected = [mean.clone() for mean in first.means]
    for path in entry_files("latents"):
        replaced = path.with_suffix(".new")
        replaced.write_bytes(damage(path.read_bytes()))
        replaced.replace(path)
    again = cache.latents(model, images)
    assert len(encoded) == 6
    for mean, right in zip(again.means, expected, strict=True):
        assert torch.equal(mean, right)


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
@torch.no_grad()
def test_kept_texts_condition_as_the_base_does(name, folders):
    loaded = base.load(str(folders[name]), CPU)
    captions = [f"picture {index}" for index in range(20)]
    known = cache.known_texts(loaded, [*captions, "", *captions])
    assert known.knows(["picture 3", ""]) and not known.knows(["picture 3", "another"])
    found, expected = known.of(["picture 7", "", "picture 7"], CPU), loaded.condition(["picture 7", "", "picture 7"])
    torch.testing.assert_close(found.states, expected.states, rtol=1e-4, atol=1e-5)
    assert (found.pooled is None) == (expected.pooled is None)
    if expected.pooled is not None:
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-5)


def test_kept_texts_are_those_of_the_base_s_own_precision(folders):
    for dtype in (torch.float32, torch.bfloat16):
        loaded = base.load(str(folders["sd15"]), CPU, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):  # whoever asks first
            assert cache.known_texts(loaded, ["a"]).conditioning.states.dtype == dtype
    assert len(entry_files("text")) == 2


BOTH = """
import sys, time, torch
from pathlib import Path
from trainables.lora import entries
def make():
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(1)
    return {"x": torch.arange(1000.0)}
assert torch.equal(entries.entry(Path(sys.argv[1]), make)["x"], torch.arange(1000.0))
"""


def test_processes_that_need_the_same_entry_make_it_once(tmp_path):
    log, environment = tmp_path / "log", os.environ | {"TUNE_LORA_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", BOTH, str(tmp_path / "cache" / "latents" / "x.safetensors"), str(log)]
    workers = [subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[3]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_after_an_error_nothing_is_left_behind(tmp_path):
    def fail():
        raise RuntimeError("no memory")

    path = tmp_path / "cache" / "latents" / "x.safetensors"
    with pytest.raises(RuntimeError):
        entries.entry(path, fail)
    assert not path.exists()
    assert torch.equal(entries.entry(path, lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    assert list(path.parent.iterdir()) == [path]
    assert load_file(path)["x"].tolist() == [1, 1]
