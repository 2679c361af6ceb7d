"""ViT-B/32 of full size with random weights, read from every form in which people have it; and the miniature."""

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.evaluation import clip_files, load_clip
from trainables.evaluation.clip_space import consistency, identity
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """Full-size ViT-B/32 weights in open_clip's names, fp16 on disk to be quick."""
    torch.manual_seed(1)
    model = open_clip.create_model("ViT-B-32")
    path = tmp_path_factory.mktemp("clip") / "weights.safetensors"
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def vit(vit_file):
    return load_clip(vit_file)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    if not (WEIGHTS / "clip").is_dir():
        pytest.skip("the weights of tiny-sd are not built")
    return load_clip()


def test_vit_b32_is_what_open_clip_computes(vit, vit_file, images):
    assert vit.calibrated and "weights.safetensors" in vit.note
    model = open_clip.create_model("ViT-B-32")
    model.load_state_dict({name: value.float() for name, value in load_file(vit_file).items()})
    model.eval()
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images).permute(0, 3, 1, 2), (224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    texts = ["glow, frontal view, happy smile", "glow, side view"]
    with torch.inference_mode():
        expected = model.encode_image((large - mean) / std, normalize=True)
        expected_texts = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts), normalize=True)
    assert vit.images(images) == pytest.approx(expected.numpy(), abs=1e-4)
    assert vit.texts(texts) == pytest.approx(expected_texts.numpy(), abs=1e-5)


def test_other_containers_and_caches_give_the_same_model(vit, vit_file, images, tmp_path, monkeypatch):
    state = load_file(vit_file)
    wrapped = tmp_path / "epoch_32.pt"  # as open_clip's own training writes it
    torch.save({"epoch": 32, "state_dict": {f"module.{name}": value for name, value in state.items()}}, wrapped)
    assert load_clip(wrapped).images(images) == pytest.approx(vit.images(images), abs=1e-6)
    wrapped.unlink()

    snapshot = tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    (snapshot / "snapshots" / "abc" / "open_clip_model.safetensors").symlink_to(vit_file)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = load_clip()
    assert found.calibrated
    assert found.images(images) == pytest.approx(vit.images(images), abs=1e-6)


@pytest.fixture(scope="module")
def openai_file(vit_file, tmp_path_factory):
    """A TorchScript archive as OpenAI publishes it: fp16, with three whole numbers beside the weights."""
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    root = torch.nn.Module()
    for name, value in {
        **load_file(vit_file),
        **{key: torch.tensor(number) for key, number in numbers.items()},
    }.items():
        *parents, leaf = name.split(".")
        holder = root
        for parent in parents:
            if not hasattr(holder, parent):
                holder.add_module(parent, torch.nn.Module())
            holder = getattr(holder, parent)
        holder.register_buffer(leaf, value)
    path = tmp_path_factory.mktemp("openai") / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(root), path)
    return path


def test_openais_own_archive_has_quick_gelu(vit, openai_file, images):
    model = load_clip(openai_file)
    assert model.calibrated
    assert np.abs(model.images(images) - vit.images(images)).max() > 1e-3  # same weights, the other GELU
    config = openai_file.with_name("open_clip_config.json")
    config.write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    assert load_clip(openai_file).images(images) == pytest.approx(vit.images(images), abs=1e-6)


def test_openais_cache_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    assert clip_files.cached() is None
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "ViT-B-32.pt").touch()
    assert clip_files.cached() == tmp_path / ".cache" / "clip" / "ViT-B-32.pt"


@pytest.mark.parametrize(
    ("name", "content"), [("a.safetensors", b"x"), ("a.pt", b"x"), ("a.bin", b""), ("b.pt", {}), ("b.bin", [1])]
)
def test_wrong_files_are_one_clear_line(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="must be ViT-B/32 weights") as caught:
        load_clip(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_one_clear_line(tmp_path):
    save_file({"unet.a.lora_A.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"got a file without .*, with unet\.a\.lora_A"):
        load_clip(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not exist"):
        load_clip(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"must hold one of open_clip_model\.safetensors"):
        load_clip(tmp_path)


def test_without_weights_and_without_the_miniature_there_is_no_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_files, "cached", lambda: None)
    with pytest.raises(InputError, match="no CLIP"):
        load_clip(fallback=tmp_path)


def test_the_miniature_says_that_it_is_uncalibrated(miniature, images):
    assert not miniature.calibrated and "miniature" in miniature.note
    vectors = miniature.images(images)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_miniature_knows_its_renders(miniature, data):
    """Real renders are nearer to their own caption than to others': it measures something."""
    from trainables.tiny_sd.data import load

    folder = data / "fluent3d" / "base"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    from PIL import Image

    held_out = load(folder)[1][:16]
    pixels = np.stack([np.asarray(Image.fromarray(render.pixels).resize((64, 64))) for render in held_out])
    images, texts = miniature.images(pixels), miniature.texts([render.captions()[0] for render in held_out])
    own = (images @ texts.T).argmax(axis=1) == np.arange(16)
    assert own.mean() > 3 / 16  # 1 in 16 is chance


def test_texts_keep_their_order_and_repeat(miniature):
    once = miniature.texts(["red apple", "blue car"])
    assert (miniature.texts(["blue car", "red apple", "blue car"]) == once[[1, 0, 1]]).all()


def test_other_sizes_are_resized_and_cut_to_the_middle(miniature):
    wide = np.full((1, 128, 256, 3), 0.2, np.float32)
    wide[:, :, 64:192] = np.random.default_rng(4).random((1, 128, 128, 3))
    assert miniature.images(wide) == pytest.approx(miniature.images(wide[:, :, 64:192]), abs=1e-2)


def test_consistency_is_the_mean_cosine_of_each_image_with_its_own_text():
    images, texts = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8], [0.6, 0.8]])
    assert consistency(images, texts) == pytest.approx((0.6 + 0.8) / 2)


def test_identity_is_the_mean_cosine_over_all_references():
    images = np.array([[1.0, 0.0], [0.0, 1.0]])
    references = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    expected = np.mean([image @ reference for image in images for reference in references])
    assert identity(images, references) == pytest.approx(expected)
