"""Noise, targets and weights of diffusion training, for bases that predict noise or velocity, with one text encoder or
two."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from tests.trainables.lora import tiny_bases
from trainables.lora import base, cache, dataset
from trainables.lora.conditioning import Conditioning
from trainables.lora.diffusion_loss import (
    denoising_loss,
    draw_noise,
    min_snr_weight,
    snr,
    training_schedule,
    validation_loss,
    validation_losses,
)
from tune_lora.errors import InputError

CPU = torch.device("cpu")
GAMMA = 5.0


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(root / "cache"))
        yield {name: base.load(str(tiny_bases.write_folder(name, root / name)), CPU) for name in tiny_bases.FAMILIES}


def batch(count=3, side=8):
    generator = torch.Generator().manual_seed(5)
    clean, noise = (torch.randn(count, 4, side, side, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([10, 500, 999])[:count]


@torch.no_grad()
def told(model, count=3):
    return model.condition([f"picture {index}" for index in range(count)])


def signal(schedule, timesteps):
    """How much of image and noise a noisy latent holds."""
    alphas = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt(), (1 - alphas).sqrt()


@torch.no_grad()
@pytest.mark.parametrize("gamma", [0.0, GAMMA])
@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_the_loss_is_the_written_formula(name, gamma, bases):
    model = bases[name]
    clean, noise, timesteps = batch()
    known = told(model)
    of_image, of_noise = signal(model.noise_schedule, timesteps)
    added = None
    if name == "sdxl":
        added = {"text_embeds": known.pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]] * 3)}
    predicted = model.unet(of_image * clean + of_noise * noise, timesteps, known.states, added_cond_kwargs=added).sample
    wanted = of_image * noise - of_noise * clean if name == "sd21" else noise
    error = (predicted - wanted).square().mean((1, 2, 3))
    if gamma:
        ratio = (of_image / of_noise).flatten() ** 2
        error *= ratio.clamp(max=gamma) / (ratio + 1 if name == "sd21" else ratio)
    found = denoising_loss(model, clean, noise, timesteps, known, min_snr_gamma=gamma)
    torch.testing.assert_close(found, error.mean(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_sdxl_is_told_the_sizes_it_is_given(bases):
    model, (clean, noise, timesteps) = bases["sdxl"], batch()
    known = told(model)
    cropped = dataclasses.replace(known, time_ids=torch.tensor([[900, 1600, 0, 200, 64, 64]] * 3))
    whole = dataclasses.replace(known, time_ids=torch.tensor([[64, 64, 0, 0, 64, 64]] * 3))
    losses = [float(denoising_loss(model, clean, noise, timesteps, one)) for one in (known, whole, cropped)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_error_is_taken_in_single_precision(dtype, bases, tmp_path):
    exact = bases["sdxl"]
    half = base.load(str(tiny_bases.write_folder("sdxl", tmp_path / "sdxl")), CPU, dtype=dtype)
    clean, noise, timesteps = batch()
    found = denoising_loss(half, clean, noise, timesteps, told(half))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, denoising_loss(exact, clean, noise, timesteps, told(exact)), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_min_snr_weights_are_finite_at_every_step_of_every_schedule(name, bases):
    """Hang et al. 2023: 1 where the ratio is below gamma, gamma over it above; a v-prediction's is over snr + 1."""
    for schedule in {bases[name].noise_schedule, training_schedule(bases["sd21"], zero_terminal_snr=True)}:
        steps = torch.arange(1000)
        weights, ratio = min_snr_weight(schedule, steps, GAMMA), snr(schedule, steps)
        assert torch.isfinite(weights).all() and (weights >= 0).all()
        divisor = ratio + 1 if schedule.config.prediction_type == "v_prediction" else ratio
        torch.testing.assert_close((weights * divisor), ratio.clamp(max=GAMMA))


def test_a_noise_prediction_without_any_signal_counts_in_full(bases):
    schedule = base.DDPMScheduler.from_config(bases["sd15"].noise_schedule.config, rescale_betas_zero_snr=True)
    assert snr(schedule, torch.tensor([999])) < 1e-6
    schedule.alphas_cumprod[-1] = 0.0
    assert min_snr_weight(schedule, torch.tensor([999]), GAMMA) == 1


def test_a_zero_terminal_schedule_ends_in_pure_noise_and_starts_as_before(bases):
    """Lin et al. 2023, algorithm 1: the square root of the signal falls to zero and keeps its first value."""
    plain, rescaled = bases["sd21"].noise_schedule, training_schedule(bases["sd21"], zero_terminal_snr=True)
    assert plain.alphas_cumprod[-1] > 0.004
    assert rescaled.alphas_cumprod[-1] < 1e-6
    torch.testing.assert_close(rescaled.alphas_cumprod[0], plain.alphas_cumprod[0])
    was, now = plain.alphas_cumprod.sqrt(), rescaled.alphas_cumprod.sqrt()
    expected = (was - was[-1]) * was[0] / (was[0] - was[-1])
    torch.testing.assert_close(now[:-1], expected[:-1], rtol=1e-4, atol=1e-4)
    assert rescaled.config.prediction_type == "v_prediction"


def test_a_zero_terminal_schedule_is_refused_to_who_predicts_noise(bases):
    with pytest.raises(InputError, match="zero_terminal_snr: got true with a base that predicts epsilon; must be"):
        training_schedule(bases["sd15"], zero_terminal_snr=True)
    assert training_schedule(bases["sd15"]) is bases["sd15"].noise_schedule


def test_a_noise_offset_shifts_whole_channels(bases):
    def drawn(offset):
        return draw_noise((200, 4, 8, 8), torch.Generator().manual_seed(1), offset)

    shift = drawn(0.5) - drawn(0.0)
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6)
    assert shift[:, :, 0, 0].std() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(drawn(0.0), torch.randn((200, 4, 8, 8), generator=torch.Generator().manual_seed(1)))


# --- validation ------------------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(tmp_path) -> tuple[dataset.CaptionedImage, ...]:
    """Five images in three buckets."""
    for index, size in enumerate([(64, 64), (128, 64), (64, 128), (64, 64), (128, 64)]):
        Image.new("RGB", size, (index * 40, 90, 200)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"picture {index}")
    found = dataset.load(tmp_path, {"resolution": 64, "enable_bucket": True, "bucket_reso_steps": 8})
    return (*found.train, *found.held_out)


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
@torch.no_grad()
def test_validation_is_the_mean_over_images_and_steps_whatever_the_batches(name, bases, held_out):
    model = bases[name]
    found = cache.latents(model, held_out, mirrored=False)
    known = model.condition([image.caption for image in held_out])
    losses = {validation_loss(model, found, known, batch=size) for size in (1, 3, 32)}
    assert max(losses) == pytest.approx(min(losses), rel=1e-4)
    assert validation_loss(model, found, known) == validation_loss(model, found, known)
    assert validation_loss(model, found, known, draws=1) != pytest.approx(min(losses), rel=1e-4)


@torch.no_grad()
def test_validation_follows_each_image_s_own_caption(bases, held_out):
    model = bases["sd15"]
    found = cache.latents(model, held_out, mirrored=False)
    known = model.condition([image.caption for image in held_out])
    changed = Conditioning(torch.cat([known.states[:-1], 10 * known.states[-1:]]))
    assert validation_loss(model, found, changed) != validation_loss(model, found, known)


@pytest.mark.parametrize("batch", [1, 5, 64])
@torch.no_grad()
def test_several_adapters_are_validated_on_the_same_rows_each_with_its_texts(bases, held_out, batch):
    model, told = bases["sd15"], []
    found = cache.latents(model, held_out, mirrored=False)
    known = model.condition([image.caption for image in held_out])
    texts = [known, Conditioning(2 * known.states), known]
    losses = validation_losses(model, found, texts, tell=told.append, batch=batch)
    assert losses == pytest.approx([validation_loss(model, found, one) for one in texts], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2]) and losses[1] != pytest.approx(losses[0], rel=1e-4)
    assert sum(told) == 4 * len(held_out) and max(told) <= max(1, batch // 3)
