"""Generation on a real pipeline of random weights: what an image depends on, and what it does not."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from tests.trainables.lora import pipelines
from trainables.lora.base import Base
from trainables.lora.generation import (
    Drawers,
    Section,
    _in_batches,
    generate,
    image_grid,
    sampler_of,
    write_comparison,
    write_image_grid,
    zero_terminal_sampler,
)
from trainables.lora.lora_tensors import LoraFile

PROMPTS = ["glow, frontal view, happy smile", "glow, side view", "red apple"]
QUICK = {"steps": 3, "guidance": 4.0}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return pipelines.stable_diffusion(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def images(pipeline):
    return generate(pipeline, PROMPTS, [1, 2, 3], **QUICK)


def test_one_image_a_prompt_in_range(images):
    assert images.shape == (3, 64, 64, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.01


def test_an_image_depends_on_its_own_prompt_and_seed_only(pipeline, images):
    turned = generate(pipeline, PROMPTS[::-1], [3, 2, 1], **QUICK)
    assert turned[::-1] == pytest.approx(images, abs=1e-4)
    alone = generate(pipeline, PROMPTS[1:2], [2], **QUICK)
    assert alone[0] == pytest.approx(images[1], abs=1e-4)
    one_by_one = generate(pipeline, PROMPTS, [1, 2, 3], batch_size=1, **QUICK)
    assert one_by_one == pytest.approx(images, abs=1e-4)


def test_the_global_seed_is_neither_used_nor_moved(pipeline, images):
    torch.manual_seed(99)
    expected = torch.rand(1)
    torch.manual_seed(99)
    assert (generate(pipeline, PROMPTS, [1, 2, 3], **QUICK) == images).all()
    assert torch.rand(1) == expected


def test_another_seed_and_another_size_are_another_image(pipeline, images):
    assert np.abs(generate(pipeline, PROMPTS[:1], [7], **QUICK)[0] - images[0]).mean() > 0.01
    assert generate(pipeline, PROMPTS[:1], [1], size=32, **QUICK).shape == (1, 32, 32, 3)
    assert generate(pipeline, PROMPTS[:1], [1], size=(64, 32), **QUICK).shape == (1, 32, 64, 3)  # width, height


def test_half_precision_denoises_and_full_precision_decodes(tmp_path):
    """The autoencoder's own precision holds under bf16 weights and under autocast: in half precision some give NaN."""
    pipeline = pipelines.stable_diffusion(tmp_path)
    full = generate(pipeline, PROMPTS[:1], [1], **QUICK)
    pipeline.unet.to(torch.bfloat16)
    pipeline.text_encoder.to(torch.bfloat16)
    seen = []
    pipeline.vae.decoder.conv_in.register_forward_hook(lambda _, given, made: seen.append((given[0].dtype, made.dtype)))
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            half = generate(pipeline, PROMPTS[:1], [1], **QUICK)
        assert np.isfinite(half).all() and np.abs(half - full).mean() < 0.1
    assert set(seen) == {(torch.float32, torch.float32)}


def test_sdxl_draws_too(tmp_path):
    drawn = generate(pipelines.stable_diffusion_xl(tmp_path), PROMPTS[:2], [1, 2], size=(64, 32), **QUICK)
    assert drawn.shape == (2, 32, 64, 3) and np.isfinite(drawn).all()


def test_another_sampler_is_there_for_as_long_as_it_takes(pipeline, images):
    own = pipeline.scheduler
    other = zero_terminal_sampler(DDPMScheduler.from_config(own.config))
    changed = generate(pipeline, PROMPTS, [1, 2, 3], scheduler=other, **QUICK)
    assert not np.allclose(changed, images, atol=1e-3) and pipeline.scheduler is own
    with pytest.raises(ValueError, match="height"):
        generate(pipeline, PROMPTS, [1, 2, 3], size=(60, 60), scheduler=other, **QUICK)
    assert pipeline.scheduler is own
    assert (generate(pipeline, PROMPTS, [1, 2, 3], **QUICK) == images).all()


@pytest.mark.parametrize(
    ("said", "predicts", "is_other"),
    [
        ("True", "v_prediction", True),
        ("True", "epsilon", False),
        ("False", "v_prediction", False),
        (None, "epsilon", False),
    ],
)
def test_a_file_says_what_it_has_to_be_sampled_with(pipeline, tmp_path, said, predicts, is_other):
    header = {} if said is None else {"ss_zero_terminal_snr": said}
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config, prediction_type=predicts)
    sampler = sampler_of(LoraFile(tmp_path, (), header), Base(pipeline, schedule, "", torch.device("cpu")))
    assert (sampler is not None) == is_other
    assert sampler is None or (sampler.alphas_cumprod[-1] == 0 and sampler.config.timestep_spacing == "trailing")


def test_dropout_is_off_while_generating_and_on_again_after(pipeline, images):
    pipeline.unet.train()
    try:
        assert (generate(pipeline, PROMPTS, [1, 2, 3], **QUICK) == images).all()
        assert pipeline.unet.training and not pipeline.vae.training
    finally:
        pipeline.unet.eval()


def test_what_is_not_finite_is_marked_and_not_hidden(pipeline):
    weight = pipeline.unet.conv_out.weight
    kept = weight.detach().clone()
    try:
        weight.data[0, 0, 0, 0] = float("nan")
        broken = generate(pipeline, PROMPTS[:2], [1, 2], **QUICK)
    finally:
        weight.data.copy_(kept)
    assert np.isnan(broken).all()


@pytest.mark.parametrize(("prompts", "seeds"), [(PROMPTS, [1, 2]), ([], [])])
def test_as_many_seeds_as_prompts(pipeline, prompts, seeds):
    with pytest.raises(ValueError, match="must be as many, and at least one"):
        generate(pipeline, prompts, seeds)


def test_a_grid_shows_every_image_and_frames_the_failed(images, tmp_path):
    many = np.concatenate([images, images, images[:1] * np.nan])
    path = write_image_grid(
        tmp_path / "deep" / "grid.png", many, labels=["a label " * 30] * 7, failed=[False] * 6 + [True], title="epoch 3"
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["grid.png"]
    with Image.open(path) as sheet:
        assert sheet.width > 4 * 150 and sheet.height > 2 * 150  # seven images: four and three
        colours = {colour for _, colour in sheet.getcolors(maxcolors=1 << 24)}
    assert (200, 30, 30) in colours and (205, 205, 205) in colours


def test_a_grid_of_good_images_has_no_red_frame(images, tmp_path):
    with Image.open(write_image_grid(tmp_path / "grid.png", np.zeros((2, 64, 64, 3)), ["a", "b"])) as sheet:
        assert (200, 30, 30) not in {colour for _, colour in sheet.getcolors(maxcolors=1 << 24)}


def test_base_beside_winner_is_twice_as_high(images, tmp_path):
    base, winner = Section("untrained base", images, PROMPTS), Section("winner", images, PROMPTS)
    one, two = image_grid([base]), image_grid([base, winner])
    assert two.size == (one.width, 2 * one.height)
    with Image.open(write_comparison(tmp_path / "two.png", [base, winner])) as written:
        assert (np.asarray(written) == np.asarray(two)).all()


def test_pixels_of_the_grid_are_the_image_s(tmp_path):
    large = (np.random.default_rng(0).random((1, 200, 200, 3)) * 255).astype(np.uint8)
    with Image.open(write_image_grid(tmp_path / "grid.png", large)) as sheet:
        pixels = np.asarray(sheet)
    rows = np.lib.stride_tricks.sliding_window_view(pixels, (200, 200, 3)).reshape(-1, 200, 200, 3)
    assert any((window == large[0]).all() for window in rows)


def test_labels_must_be_as_many(images, tmp_path):
    with pytest.raises(ValueError, match="3 images and 1 labels"):
        write_image_grid(tmp_path / "grid.png", images, ["one"])


@pytest.mark.parametrize(("count", "size", "fits"), [(7, 8, 8), (7, 8, 3), (9, 4, 1), (1, 8, 1)])
def test_half_a_batch_is_tried_where_memory_does_not_suffice(count, size, fits):
    tried = []

    def drawn(rows):
        tried.append(rows.stop - rows.start)
        if tried[-1] > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return np.arange(count)[rows]

    found = list(_in_batches(drawn, count, size))
    assert np.concatenate(found).tolist() == list(range(count))
    assert max(map(len, found)) <= fits
    assert tried[0] == min(size, count) and len(tried) <= len(found) + 4


def test_a_memory_that_does_not_suffice_for_one_image_is_said():
    def refuses(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(_in_batches(refuses, 3, 8))


class Heard:
    """A routing that only listens."""

    def __init__(self):
        self.told = []

    def tell(self, models, shares):
        self.told.append((len(list(models)), [tuple(share[:2]) for share in shares]))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_each_batch_says_whose_rows_it_has_and_for_whom_it_worked(pipeline, images, guidance):
    heard, charged, rows = Heard(), [], []
    hook = pipeline.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    drawers = Drawers([5, 5, 9], heard, charged.append)
    drawn = generate(pipeline, PROMPTS, [1, 2, 3], steps=3, guidance=guidance, batch_size=2, drawers=drawers)
    hook.remove()
    times = 2 if guidance > 1 else 1
    assert heard.told == [(1, [(5, 2)]), (1, [(5, 2 * times)]), (1, [(9, 1)]), (1, [(9, times)])]
    assert set(rows) == {2 * times, times}
    assert charged == [{5: 2}, {9: 1}]
    assert guidance == 1.0 or drawn == pytest.approx(images, abs=1e-4)
    heard.told.clear()
    generate(pipeline, PROMPTS, [1, 2, 3], steps=1, guidance=guidance, drawers=drawers)
    assert heard.told == [(1, [(5, 2), (9, 1)]), (1, [(5, 2), (9, 1)] * times)]
