"""The demo's character: what a caption says is what is drawn, and the same call draws it again to the byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainables.demo_character import EXPRESSIONS, VIEWS, caption, draw, poses, write_dataset
from trainables.demo_character.render import Camera


def pixels(expression: str, yaw: float = 0, pitch: float = 0, size: int = 64) -> np.ndarray:
    return np.asarray(draw(EXPRESSIONS[expression], Camera(yaw, pitch), size), dtype=float) / 255


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("character") / "made" / "on the way"
    write_dataset(folder, count=8, seed=3, name="bobo")
    return folder


def test_every_image_has_a_caption_and_the_folder_a_kohya_config(dataset: Path) -> None:
    images = sorted(dataset.glob("*.png"))
    assert len(images) == 8
    for path in images:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")
        words = path.with_suffix(".txt").read_text().strip().split(", ")
        assert words[0] == "bobo"
        assert words[1] in VIEWS
        assert words[2] in EXPRESSIONS
        assert words[3:] == ["3d render", "white background"]
    config = tomllib.loads((dataset / "dataset.toml").read_text())
    assert config["general"]["caption_extension"] == ".txt"
    subset = config["datasets"][0]["subsets"][0]
    assert (dataset / subset["image_dir"]).resolve() == dataset.resolve()
    assert subset["num_repeats"] >= 1


def test_the_same_arguments_give_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from trainables.demo_character import write_dataset; "
        "write_dataset(pathlib.Path(sys.argv[1]), count=8, seed=3, name='bobo')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "again")], check=True)
    assert digests(tmp_path / "again") == digests(dataset)


def test_another_seed_draws_other_pictures_under_the_same_captions(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, count=8, seed=4, name="bobo")
    mine, others = digests(tmp_path), digests(dataset)
    assert {n: d for n, d in mine.items() if n.endswith(".txt")} == {
        n: d for n, d in others.items() if n.endswith(".txt")
    }
    assert all(mine[name] != others[name] for name in mine if name.endswith(".png"))


def test_the_first_48_poses_are_every_pair_of_view_and_expression() -> None:
    assert {(pose.view, pose.expression) for pose in poses(48)} == {(v, e) for v in VIEWS for e in EXPRESSIONS}


@given(count=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_as_many_poses_as_asked_and_none_in_excess(count: int, seed: int) -> None:
    drawn = poses(count, seed)
    assert len(drawn) == count
    assert drawn == poses(count, seed)
    tally = [sum(pose.view == view for pose in drawn) for view in VIEWS]
    assert max(tally) - min(tally) <= 1


def test_no_poses_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="count is 0, must be at least 1"):
        poses(0)


def test_the_caption_names_the_character_its_view_and_its_expression() -> None:
    first = poses(1)[0]
    assert caption("momo", first) == "momo, frontal view, happy smile, 3d render, white background"


@pytest.mark.parametrize(("pitch", "yaw"), [(0, 0), (33, 0), (-24, 0), (4, 30), (3, -60)])
def test_the_whole_figure_is_in_the_picture_on_white(pitch: float, yaw: float) -> None:
    image = pixels("happy smile", yaw, pitch)
    assert image[:, [0, -1]].min() > 0.9
    assert image[0].min() > 0.9
    covered = (image.min(axis=2) < 0.8).mean()
    assert 0.2 < covered < 0.6


def test_expressions_differ_at_64_pixels_by_more_than_the_light() -> None:
    faces = {name: pixels(name) for name in EXPRESSIONS}
    light = np.abs(
        np.asarray(draw(EXPRESSIONS["happy smile"], Camera(light=(-0.47, 0.75, 0.75)), 64), dtype=float) / 255
        - faces["happy smile"]
    ).mean()
    names = list(faces)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            assert np.abs(faces[one] - faces[other]).mean() > light, f"{one} looks like {other}"


def test_the_face_turns_with_the_head() -> None:
    """Cream is the face's colour; its centre moves left, right, down and up with the views."""

    def face(yaw: float, pitch: float) -> np.ndarray:
        image = pixels("happy smile", yaw, pitch)[:40]
        rows, columns = np.nonzero((image[..., 0] > 0.8) & (image[..., 2] < 0.85) & (image[..., 1] > 0.6))
        return np.array([rows.mean(), columns.mean()])

    front = face(0, 0)
    assert face(-60, 0)[1] < face(-30, 0)[1] < front[1] - 3
    assert face(30, 0)[1] > front[1] + 3
    assert face(0, 33)[0] > front[0] + 2
    assert face(0, -24)[0] < front[0] - 1


def test_it_is_shaded_like_a_solid_body() -> None:
    """The head is brighter at its upper left, where the light is, than at its lower right; the floor holds a shadow."""
    image = pixels("happy smile", yaw=180).mean(axis=2)  # from behind: no face on the head
    assert image[17, 22] > image[34, 46] + 0.1
    assert image[-4:, 20:44].min() < 0.97
