"""Every family of bases trains for real, on pictures of several shapes, in every precision; validation stays
comparable whatever a trial trains with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainables.lora import tiny_bases
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.lora import base, image_session
from trainables.lora.generation import generate
from trainables.protocol import TrialContext

PARAMS = {
    "network_dim": 2,
    "network_alpha": 1.0,
    "learning_rate": 1e-3,
    "text_encoder_lr": 1e-3,
    "max_train_epochs": 2,
    "gradient_accumulation_steps": 2,
}
BUCKETS = {"resolution": (64, 96), "enable_bucket": True, "bucket_reso_steps": 16, "batch_size": 2, "flip": True}


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny_bases.write_folder(name, root / name) for name in tiny_bases.FAMILIES}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(9):
        width, height = [(64, 96), (96, 64), (64, 128)][index % 3]
        Image.fromarray(draw.integers(0, 255, (height, width, 3), np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}, in colour")
    return folder


def reports(folder, pictures, where, *, settings=None, **params):
    trainer = DiffusionLora(
        str(folder), str(pictures), BUCKETS | (settings or {}), evaluation=ImageEvaluation(n_images=2, steps=2)
    )
    return list(trainer.run(TrialContext(params=PARAMS | params, folder=where, seed=1)))


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_every_family_trains_on_pictures_of_several_shapes(name, folders, pictures, tmp_path):
    found = reports(folders[name], pictures, tmp_path)
    assert [report.budget for report in found] == [1, 2]
    assert all(0 < report.metrics["train_loss"] < 100 for report in found)
    assert found[0].metrics["val_loss"] != found[1].metrics["val_loss"]
    assert any((tmp_path / "lora").iterdir())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sdxl_trains_in_half_precision_as_in_single(precision, folders, pictures, tmp_path):
    exact = reports(folders["sdxl"], pictures, tmp_path / "fp32", text_encoder_lr=0.0)
    half = reports(folders["sdxl"], pictures, tmp_path / precision, text_encoder_lr=0.0, precision=precision)
    for one, other in zip(exact, half, strict=True):
        assert other.metrics["val_loss"] == pytest.approx(one.metrics["val_loss"], rel=0.02)


@pytest.mark.parametrize("settings", [{"shuffle_caption": True}, {"caption_dropout": 0.5}])
def test_texts_from_the_cache_train_as_computed_ones_do(settings, folders, pictures, tmp_path, monkeypatch):
    from trainables.lora.cache import KnownTexts

    def losses(where):
        found = reports(folders["sdxl"], pictures, where, settings=settings, text_encoder_lr=0.0)
        return [report.metrics["val_loss"] for report in found]

    kept = losses(tmp_path / "kept")
    monkeypatch.setattr(KnownTexts, "knows", lambda *_: False)
    assert losses(tmp_path / "computed") == pytest.approx(kept, rel=1e-4)


@pytest.mark.parametrize("option", [{"noise_offset": 0.1}, {"min_snr_gamma": 5.0}, {"zero_terminal_snr": True}])
def test_options_of_the_loss_change_what_is_trained_and_not_how_it_is_judged(option, folders, pictures, tmp_path):
    """With a learning rate next to nothing the LoRA stays what it was: every trial is then judged alike."""
    still = {"learning_rate": 1e-12, "text_encoder_lr": 0.0, "max_train_epochs": 1}
    (plain,) = reports(folders["sd21"], pictures, tmp_path / "plain", **still)
    (changed,) = reports(folders["sd21"], pictures, tmp_path / "changed", **still, **option)
    assert changed.metrics["train_loss"] != pytest.approx(plain.metrics["train_loss"], rel=1e-6)
    assert changed.metrics["val_loss"] == pytest.approx(plain.metrics["val_loss"], rel=1e-6)


def test_images_of_a_zero_terminal_trial_begin_at_pure_noise_and_others_as_the_base_does(
    folders, pictures, tmp_path, monkeypatch
):
    seen = []  # of each look: the sampler, and the noisiest timestep that the denoiser was shown
    real = image_session.generate

    def watched(pipeline, *args, **options):
        timesteps = []

        def look(_, given) -> None:
            timesteps.append((int(given[1]), pipeline.scheduler))

        hook = pipeline.unet.register_forward_pre_hook(look)
        images = real(pipeline, *args, **options)
        hook.remove()
        seen.append((*max(timesteps, key=lambda one: one[0]), pipeline.scheduler))
        return images

    monkeypatch.setattr(image_session, "generate", watched)
    trainer = DiffusionLora(
        str(folders["sd21"]), str(pictures), BUCKETS, evaluation=ImageEvaluation(n_images=2, steps=4)
    )
    params, shared = PARAMS | {"max_train_epochs": 1, "text_encoder_lr": 0.0}, {}
    for number, option in enumerate([{}, {"zero_terminal_snr": True}, {}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        list(trainer.run(TrialContext(params=params | option, folder=folder, shared=shared, seed=1)))
    (first, usual, base), (last, rescaled, after), again = seen
    assert usual is base is after and again == (first, usual, base)
    assert first < 999 and usual.alphas_cumprod[first] > 1e-3
    assert last == 999 and rescaled.alphas_cumprod[last] < 1e-6
    assert rescaled.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_images_have_the_asked_width_and_height_and_nearly_the_same_look_in_half_precision(name, folders):
    prompts, seeds = ["a picture", "another"], [1, 2]
    shown = {}
    for dtype in (torch.float32, torch.bfloat16):
        loaded = base.load(str(folders[name]), torch.device("cpu"), dtype=dtype)
        shown[dtype] = generate(loaded.pipeline, prompts, seeds, steps=3, size=(96, 64))
        assert shown[dtype].shape == (2, 64, 96, 3) and shown[dtype].dtype == np.float32
    assert np.abs(shown[torch.float32] - shown[torch.bfloat16]).mean() < 0.02


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_images_are_those_that_the_pipeline_itself_draws(name, folders):
    loaded = base.load(str(folders[name]), torch.device("cpu"))
    expected = loaded.pipeline(
        "a picture", height=64, width=96, num_inference_steps=3, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    found = generate(loaded.pipeline, ["a picture"], [7], steps=3, guidance=4.0, size=(96, 64))
    np.testing.assert_allclose(found, expected, atol=1e-4)
