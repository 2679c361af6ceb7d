"""The features-once form against the lpips package itself, on AlexNet of full size."""

import itertools

import lpips
import numpy as np
import pytest
import torch
import torchvision

from trainables.evaluation import LpipsNetwork, load_lpips
from tune_lora.errors import InputError


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((5, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def alexnet_file(tmp_path_factory):
    """Full-size AlexNet weights as torchvision stores them, random but seeded."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def fallback():
    return load_lpips()


def by_the_package(network, images):
    """LPIPS of each pair by the package's own forward, two networks a pair."""
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in images]
    pairs = itertools.combinations(tensors, 2)
    with torch.inference_mode():
        return [float(network(one, other, normalize=True)) for one, other in pairs]


@pytest.mark.parametrize("size", [64, 320])
def test_all_pairs_equal_the_package(alexnet_file, size):
    images = np.random.default_rng(0).random((4, size, size, 3)).astype(np.float32)
    ours = load_lpips(alexnet_file)
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(alexnet_file, weights_only=True)
    # The package's slices keep torchvision's layer numbers.
    reference.net.load_state_dict({key: state[f"features.{key[7:]}"] for key in reference.net.state_dict()})
    expected = by_the_package(reference, images)
    assert max(expected) > 1e-3
    assert ours.pairwise(images) == pytest.approx(expected, abs=1e-5)
    assert ours.diversity(images) == pytest.approx(np.mean(expected), abs=1e-5)


def test_weights_of_a_path_are_calibrated_and_differ_from_the_fallback(alexnet_file, fallback, images):
    given = load_lpips(alexnet_file)
    assert given.calibrated and "alexnet.pth" in given.note
    assert not fallback.calibrated and "random" in fallback.note
    assert given.pairwise(images) != pytest.approx(fallback.pairwise(images))


def test_torchs_own_cache_is_found(alexnet_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").symlink_to(alexnet_file)
    assert load_lpips().calibrated


def test_the_fallback_is_the_same_every_time_and_leaves_the_seed_alone(fallback, images):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = load_lpips()
    assert torch.rand(1) == expected
    assert (again.pairwise(images) == fallback.pairwise(images)).all()


def test_the_same_image_twice_has_no_distance(fallback, images):
    twins = np.stack([images[0], images[0]])
    assert fallback.diversity(twins) == 0


def test_one_image_has_no_diversity(fallback, images):
    assert fallback.diversity(images[:1]) == 0


def test_pairs_do_not_depend_on_the_batch(fallback):
    many = np.random.default_rng(2).random((20, 32, 32, 3)).astype(np.float32)
    assert fallback.pairwise(many)[:1] == pytest.approx(fallback.pairwise(many[:2]), abs=1e-6)


def test_images_too_small_are_refused(fallback: LpipsNetwork):
    with pytest.raises(ValueError, match="at least 32"):
        fallback.features(np.zeros((1, 16, 16, 3)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not weights", "cannot be read"),
        (b"", "cannot be read"),
        ({"a": torch.zeros(1)}, "a file without features"),
        ([1, 2], "got a list"),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path, content, said):
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=said) as caught:
        load_lpips(path)
    assert "must be torchvision's AlexNet weights" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth"):
        load_lpips(tmp_path / "none.pth")


@pytest.mark.parametrize("pixels", [1, 3 * 64 * 64, 10**9])
def test_diversities_of_several_sets_are_those_of_each_however_many_are_seen_at_once(fallback, pixels, monkeypatch):
    drawn = np.random.default_rng(1).random((9, 64, 64, 3)).astype(np.float32)
    sets = [drawn[:4], drawn[4:5], drawn[5:7], drawn[7:]]
    monkeypatch.setattr("trainables.evaluation.lpips_diversity._PIXELS_AT_ONCE", pixels)
    found = fallback.diversities(sets)
    assert found == pytest.approx([fallback.diversity(images) for images in sets], rel=1e-5)
    assert found[1] == 0.0 and len(set(found)) == 4
