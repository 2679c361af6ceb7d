"""Base models from folders and from single checkpoint files, offline; and what is said of files that are no base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import accelerate
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.trainables.lora import ldm_layout
from trainables.lora import base, sd15_config
from trainables.lora.paths import resolve_base
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

CPU = torch.device("cpu")
# What every published checkpoint of Stable Diffusion 1.x holds besides the three networks.
BESIDES = {
    "betas": torch.linspace(0.00085, 0.012, 1000),
    "alphas_cumprod": torch.linspace(1, 0, 1000),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def full_config(cache) -> Path:
    return sd15_config.config_folder()


def read(folder: Path, part: str) -> dict:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    return json.loads((folder / part / name).read_text())


@pytest.fixture(scope="module")
def narrow(full_config) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 as the configuration has it, blocks and layers and all, in one channel of forty."""
    torch.manual_seed(0)
    few = {"block_out_channels": (8, 16, 32, 32), "norm_num_groups": 4}
    unet = read(full_config, "unet") | few | {"attention_head_dim": 2, "cross_attention_dim": 24, "sample_size": 8}
    vae = read(full_config, "vae") | few | {"sample_size": 64}
    text = read(full_config, "text_encoder") | {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_config(vae),
        unet=UNet2DConditionModel.from_config(unet),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text)).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(str(full_config / "tokenizer")),
        scheduler=PNDMScheduler.from_config(read(full_config, "scheduler")),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def folder(narrow, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("folder") / "narrow"
    narrow.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def weights(narrow) -> dict[str, torch.Tensor]:
    return ldm_layout.checkpoint(narrow.unet, narrow.vae, narrow.text_encoder) | BESIDES


@pytest.fixture
def narrow_config(folder, monkeypatch):
    monkeypatch.setattr(sd15_config, "config_folder", lambda: folder)


def saved(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


@torch.no_grad()
def outputs(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """What each network answers to the same question."""
    draw = torch.Generator().manual_seed(1)
    ids = pipeline.tokenizer("smiley, frontal view", padding="max_length", return_tensors="pt").input_ids
    latents, pixels = torch.randn(1, 4, 8, 8, generator=draw), torch.rand(1, 3, 64, 64, generator=draw)
    states = pipeline.text_encoder(ids)[0]
    return {
        "text": states,
        "unet": pipeline.unet(latents, torch.tensor([400]), states).sample,
        "latents": pipeline.vae.encode(pixels).latent_dist.mean,
        "picture": pipeline.vae.decode(latents).sample,
    }


def test_a_checkpoint_file_answers_as_the_pipeline_it_was_made_of(narrow, weights, tmp_path, narrow_config):
    loaded = base.load(str(saved(tmp_path / "model.safetensors", weights)), CPU)
    expected, got = outputs(narrow), outputs(loaded.pipeline)
    for part, answer in expected.items():
        assert answer.std() > 0
        torch.testing.assert_close(got[part], answer, msg=part)
    assert loaded.tokens(["smiley"]).shape == (1, 77)
    torch.testing.assert_close(loaded.noise_schedule.betas[[0, -1]], torch.tensor([0.00085, 0.012]))


def test_a_half_precision_checkpoint_is_loaded_in_single_precision_and_frozen(weights, tmp_path, narrow_config):
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    loaded = base.load(str(saved(tmp_path / "model.safetensors", half)), CPU)
    for model in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert not any(weight.requires_grad for weight in model.parameters())
        assert not any(module.training for module in model.modules())
    torch.testing.assert_close(
        loaded.unet.conv_in.weight, half["model.diffusion_model.input_blocks.0.0.weight"].float()
    )


def test_a_folder_answers_as_the_pipeline_it_was_made_of(narrow, folder):
    got = outputs(base.load(str(folder), CPU).pipeline)
    for part, answer in outputs(narrow).items():
        torch.testing.assert_close(got[part], answer, msg=part)


@pytest.mark.parametrize(("side", "one_at_a_time"), [(64, False), (512, True)])
def test_a_large_vae_works_on_one_image_at_a_time(folder, tmp_path, side, one_at_a_time):
    copy = shutil.copytree(folder, tmp_path / "base")
    config = copy / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": side}))
    loaded = base.load(str(copy), CPU)
    sizes = []
    loaded.vae.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        loaded.vae.encode(torch.zeros(3, 3, 16, 16))
    assert sizes == ([1, 1, 1] if one_at_a_time else [3])


def test_the_identity_follows_the_weights_and_not_the_place(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert base.load(str(copy), CPU).identity == base.load(str(folder), CPU).identity
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    changed = load_file(file)
    changed["conv_in.bias"] += 1
    save_file(changed, file)
    assert base.load(str(copy), CPU).identity != base.load(str(folder), CPU).identity


def test_the_written_configuration_is_that_of_stable_diffusion_1_5(full_config):
    """Sizes as published: 860 million weights in the UNet, 84 in the VAE, 123 in the text encoder."""
    with accelerate.init_empty_weights():
        unet = UNet2DConditionModel.from_config(read(full_config, "unet"))
        vae = AutoencoderKL.from_config(read(full_config, "vae"))
        text = CLIPTextModel(CLIPTextConfig(**read(full_config, "text_encoder")))
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (unet, vae, text)]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert (unet.config.cross_attention_dim, text.config.hidden_size) == (768, 768)
    assert sd15_config.config_folder() == full_config


@pytest.mark.slow
def test_a_checkpoint_of_full_size_is_loaded_weight_by_weight(full_config, tmp_path):
    """2.1 GB on disk, 8 GB of memory: each of the 1130 tensors is filled with its own number and found again."""
    with accelerate.init_empty_weights():
        unet = UNet2DConditionModel.from_config(read(full_config, "unet"))
        vae = AutoencoderKL.from_config(read(full_config, "vae"))
        text = CLIPTextModel(CLIPTextConfig(**read(full_config, "text_encoder")))
    names = ldm_layout.checkpoint(unet, vae, text)
    numbers = {name: float(number) for number, name in enumerate(names)}
    path = tmp_path / "model.safetensors"
    half = {name: torch.full(value.shape, numbers[name], dtype=torch.half) for name, value in names.items()}
    saved(path, half | BESIDES)
    del half
    loaded = base.load(str(path), CPU)
    path.unlink()
    found = ldm_layout.checkpoint(loaded.unet, loaded.vae, loaded.text_encoder)
    assert {name: value.unique().tolist() for name, value in found.items()} == {
        name: [number] for name, number in numbers.items()
    }


# --- what is no base -------------------------------------------------------------------------------------------------


def refusal(path: Path | str) -> str:
    """The one line that a person gets, before a study starts or when the base is loaded."""
    with pytest.raises(InputError) as caught:
        base.load(str(path), CPU)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_text_file_with_the_right_name(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "cannot be read as safetensors" in refusal(path)
    with pytest.raises(InputError):
        resolve_base(str(path))


def test_an_empty_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    assert "cannot be read as safetensors" in refusal(path)


def test_a_truncated_download(weights, tmp_path):
    path = saved(tmp_path / "model.safetensors", weights)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cannot be read as safetensors" in refusal(path)


@pytest.mark.parametrize(
    "name",
    ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "unet.down_blocks.0.to_q.lora_A.weight"],
)
def test_a_lora(name, tmp_path):
    assert "is a LoRA, not a base model" in refusal(saved(tmp_path / "a.safetensors", {name: torch.zeros(4, 8)}))


def test_a_checkpoint_without_a_text_encoder_of_1_x(weights, tmp_path):
    other = {name.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.model."): value
             for name, value in weights.items()}  # fmt: skip
    message = refusal(saved(tmp_path / "sd21.safetensors", other))
    assert "has no text encoder of Stable Diffusion 1.x" in message
    assert "diffusers' layout" in message


def test_a_checkpoint_that_lacks_a_layer(weights, tmp_path, narrow_config):
    absent = "model.diffusion_model.middle_block.1.proj_in.weight"
    rest = {name: value for name, value in weights.items() if name != absent}
    assert "is incomplete: weights are missing" in refusal(saved(tmp_path / "part.safetensors", rest))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_folder_that_lacks_a_layer(part, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (file,) = (copy / part).glob("*.safetensors")
    weights = load_file(file)
    absent = next(name for name in weights if "mid_block" in name)
    save_file({name: value for name, value in weights.items() if name != absent}, file, {"format": "pt"})
    assert f"is incomplete: weights are missing, first {part}.{absent}" in refusal(copy)


def test_a_checkpoint_of_other_shapes(weights, tmp_path, full_config):
    assert "cannot be loaded" in refusal(saved(tmp_path / "narrow.safetensors", weights))


def test_a_path_where_nothing_is(tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent")
    assert "does not exist" in refusal(tmp_path / "absent.safetensors")


def test_a_pickled_checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"PK")
    assert "is a .ckpt file; must be" in refusal(path)


def test_a_folder_that_is_no_pipeline(tmp_path):
    assert "lacks model_index.json, unet, vae, text_encoder, tokenizer, scheduler" in refusal(tmp_path)


def test_a_pipeline_of_another_kind(tmp_path):
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / part).mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    assert "holds a StableDiffusionXLPipeline; must be a StableDiffusionPipeline" in refusal(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    assert "cannot be read as JSON" in refusal(tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_with_a_truncated_or_missing_part(part, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(WEIGHTS, copy)
    (file,) = (copy / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be loaded" in refusal(copy)
    file.unlink()
    assert "cannot be loaded" in refusal(copy)
