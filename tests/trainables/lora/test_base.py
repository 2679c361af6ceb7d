"""Base models from folders and from single checkpoint files, offline; and what is said of files that are no base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import accelerate
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.trainables.lora import ldm_layout, tiny_bases
from trainables.lora import base, base_configs
from trainables.lora.paths import prediction_of, resolve_base
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

CPU = torch.device("cpu")
# What published checkpoints of 1.x hold besides the networks.
BESIDES = {
    "betas": torch.linspace(0.00085, 0.012, 1000),
    "alphas_cumprod": torch.linspace(1, 0, 1000),
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> dict[str, Path]:
    """Small configurations by their names."""
    root = tmp_path_factory.mktemp("configs")
    return {name: tiny_bases.write_config(name, root / name) for name in base_configs.PIPELINES}


@pytest.fixture(scope="module")
def pipelines(configs):
    return {name: tiny_bases.pipeline(folder) for name, folder in configs.items()}


@pytest.fixture(scope="module")
def folders(pipelines, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(root / name)
    return {name: root / name for name in pipelines}


@pytest.fixture(scope="module")
def narrow(pipelines):
    return pipelines["sd15"]


@pytest.fixture(scope="module")
def folder(folders) -> Path:
    return folders["sd15"]


def weights_of(pipeline) -> dict[str, torch.Tensor]:
    """The pipeline as a checkpoint file has it."""
    encoders = [pipeline.text_encoder, *([second] if (second := getattr(pipeline, "text_encoder_2", None)) else [])]
    return ldm_layout.checkpoint(pipeline.unet, pipeline.vae, *encoders)


@pytest.fixture(scope="module")
def weights(narrow) -> dict[str, torch.Tensor]:
    return weights_of(narrow) | BESIDES


@pytest.fixture
def narrow_config(configs, monkeypatch):
    monkeypatch.setattr(base, "config_folder", configs.get)


def saved(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


ALONE = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}


@torch.no_grad()
def outputs(pipeline) -> dict[str, torch.Tensor]:
    """What each network answers to the same question."""
    draw = torch.Generator().manual_seed(1)
    latents, pixels = torch.randn(1, 4, 8, 8, generator=draw), torch.rand(1, 3, 64, 64, generator=draw)
    large = "text_encoder_2" in pipeline.components
    states, _, pooled, *_ = (*pipeline.encode_prompt("smiley", device=CPU, **ALONE), None)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]])} if large else None
    answers = {
        "text": states,
        "unet": pipeline.unet(latents, torch.tensor([400]), states, added_cond_kwargs=added).sample,
        "latents": pipeline.vae.encode(pixels).latent_dist.mean,
        "picture": pipeline.vae.decode(latents).sample,
    }
    return answers | ({"pooled": pooled} if large else {})


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_a_checkpoint_file_answers_as_the_pipeline_it_was_made_of(name, pipelines, tmp_path, narrow_config):
    narrow = pipelines[name]
    besides = BESIDES if name == "sd15" else {}
    loaded = base.load(str(saved(tmp_path / "model.safetensors", weights_of(narrow) | besides)), CPU)
    expected, got = outputs(narrow), outputs(loaded.pipeline)
    for part, answer in expected.items():
        assert answer.std() > 0
        torch.testing.assert_close(got[part], answer, msg=part)
    torch.testing.assert_close(loaded.noise_schedule.betas[[0, -1]], torch.tensor([0.00085, 0.012]))


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_a_folder_answers_as_the_pipeline_it_was_made_of(name, pipelines, folders):
    got = outputs(base.load(str(folders[name]), CPU).pipeline)
    for part, answer in outputs(pipelines[name]).items():
        torch.testing.assert_close(got[part], answer, msg=part)


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_captions_condition_as_in_the_pipeline_itself(name, folders):
    loaded = base.load(str(folders[name]), CPU)
    captions = ["smiley, frontal view!", "", "a " * 200]
    with torch.no_grad():
        found = loaded.condition(captions)
        if name == "sdxl":
            states, _, pooled, _ = loaded.pipeline.encode_prompt(captions, device=CPU, **ALONE)
            torch.testing.assert_close(found.pooled, pooled)
        else:
            states, _ = loaded.pipeline.encode_prompt(captions, device=CPU, **ALONE)
            assert found.pooled is None
    assert found.states.shape == (3, 77, sum(tiny_bases.WIDTHS[name]))
    torch.testing.assert_close(found.states, states)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_the_autoencoder_stays_in_single_precision(name, dtype, folders):
    loaded = base.load(str(folders[name]), CPU, dtype=dtype)
    assert {weight.dtype for weight in loaded.vae.parameters()} == {torch.float32}
    assert set(loaded.models) == {"unet", "text_encoder"} | ({"text_encoder_2"} if name == "sdxl" else set())
    for model in loaded.models.values():
        assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_what_a_base_predicts_is_said_by_its_scheduler_or_by_the_user(pipelines, folders, tmp_path, narrow_config):
    file = saved(tmp_path / "model.safetensors", weights_of(pipelines["sd21"]))
    assert base.load(str(folders["sd21"]), CPU).prediction_type == "v_prediction"
    assert base.load(str(folders["sd21-base"]), CPU).prediction_type == "epsilon"
    assert base.load(str(folders["sd15"]), CPU, prediction_type="v_prediction").prediction_type == "v_prediction"
    for chosen, expected in ((None, "v_prediction"), ("epsilon", "epsilon"), ("v_prediction", "v_prediction")):
        loaded = base.load(str(file), CPU, prediction_type=chosen)
        assert loaded.prediction_type == expected == prediction_of(file, chosen)
        assert loaded.pipeline.scheduler.config.prediction_type == expected


def test_a_fine_tune_of_sdxl_may_say_that_it_predicts_velocities(pipelines, tmp_path, narrow_config):
    marked = weights_of(pipelines["sdxl"]) | {"v_pred": torch.zeros(0)}
    plain = saved(tmp_path / "plain.safetensors", weights_of(pipelines["sdxl"]))
    assert base.load(str(saved(tmp_path / "marked.safetensors", marked)), CPU).prediction_type == "v_prediction"
    assert base.load(str(plain), CPU).prediction_type == "epsilon"


def test_a_base_that_predicts_images_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "base")
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
    assert "predicts 'sample'; must be epsilon or v_prediction" in refusal(copy)


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


PUBLISHED = {
    "sd15": (859_520_964, 83_653_863, 123_060_480),
    "sd21": (865_910_724, 83_653_863, 340_387_840),
    "sd21-base": (865_910_724, 83_653_863, 340_387_840),
    "sdxl": (2_567_463_684, 83_653_863, 123_060_480, 694_659_840),
}
"""Weights of the published models: UNet, VAE, text encoders."""


def empty(config: Path) -> list[torch.nn.Module]:
    """The networks of a configuration, without values."""
    with accelerate.init_empty_weights():
        networks = [
            UNet2DConditionModel.from_config(tiny_bases.read(config / "unet" / "config.json")),
            AutoencoderKL.from_config(tiny_bases.read(config / "vae" / "config.json")),
            CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder")),
        ]
        if (config / "text_encoder_2").is_dir():
            networks.append(CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(config / "text_encoder_2")))
    return networks


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_the_written_configurations_have_the_sizes_of_the_published_models(name):
    config = base_configs.config_folder(name)
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in empty(config)]
    assert tuple(sizes) == PUBLISHED[name]
    assert base_configs.config_folder(name) == config


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_a_checkpoint_of_full_size_is_loaded_weight_by_weight(name, tmp_path):
    """Half precision on disk and in memory (2 to 7 GB each): each tensor has a number of its own and is found again."""
    names = ldm_layout.checkpoint(*empty(base_configs.config_folder(name)))
    numbers = {name: float(number % 2000) for number, name in enumerate(names)}
    path = tmp_path / "model.safetensors"
    saved(path, {name: torch.full(value.shape, numbers[name], dtype=torch.half) for name, value in names.items()})
    loaded = base.load(str(path), CPU, dtype=torch.half)
    path.unlink()
    found = ldm_layout.checkpoint(loaded.unet, loaded.vae, *loaded.text_encoders.values())
    for name, number in numbers.items():
        assert found[name].min() == found[name].max() == number, name


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


def test_a_checkpoint_without_a_text_encoder(weights, tmp_path):
    rest = {name: value for name, value in weights.items() if not name.startswith("cond_stage_model.")}
    message = refusal(saved(tmp_path / "unet.safetensors", rest))
    assert "has no text encoder of Stable Diffusion" in message and "diffusers' layout" in message


FOREIGN = {
    "is Stable Diffusion 3;": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4, 4)},
    "is Flux;": {"double_blocks.0.img_attn.qkv.weight": (4, 4)},
    "is the SDXL refiner;": {"conditioner.embedders.0.model.ln_final.weight": (4,)},
}


@pytest.mark.parametrize("message", list(FOREIGN))
def test_a_checkpoint_of_another_family(message, weights, tmp_path):
    foreign = {name: torch.zeros(shape) for name, shape in FOREIGN[message].items()}
    assert message in refusal(saved(tmp_path / "other.safetensors", weights | foreign))


def test_a_checkpoint_for_inpainting(weights, tmp_path):
    first = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3)}
    message = refusal(saved(tmp_path / "inpainting.safetensors", weights | first))
    assert "is made for inpainting (9 input channels); must be a text-to-image model" in message


def test_a_folder_for_inpainting(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "base")
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    assert "is made for inpainting" in refusal(copy)


def test_a_checkpoint_that_lacks_a_layer(weights, tmp_path, narrow_config):
    absent = "model.diffusion_model.middle_block.1.proj_in.weight"
    rest = {name: value for name, value in weights.items() if name != absent}
    assert "is incomplete: weights are missing" in refusal(saved(tmp_path / "part.safetensors", rest))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_folder_that_lacks_a_layer(part, folders, tmp_path):
    copy = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    (file,) = (copy / part).glob("*.safetensors")
    weights = load_file(file)
    absent = next(name for name in weights if "mid_block" in name or "layers.1" in name)
    save_file({name: value for name, value in weights.items() if name != absent}, file, {"format": "pt"})
    assert f"is incomplete: weights are missing, first {part}.{absent}" in refusal(copy)


def test_a_checkpoint_of_other_shapes(weights, tmp_path):
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


def test_a_pipeline_of_another_kind(folders, tmp_path):
    copy = shutil.copytree(folders["sdxl"], tmp_path / "base")
    (copy / "model_index.json").write_text('{"_class_name": "StableDiffusionXLImg2ImgPipeline"}')
    message = refusal(copy)
    assert "holds a StableDiffusionXLImg2ImgPipeline; must be a StableDiffusionPipeline or a Stable" in message
    (copy / "model_index.json").write_text("{")
    assert "cannot be read as JSON" in refusal(copy)


def test_a_pipeline_of_sdxl_without_its_second_text_encoder(folders, tmp_path):
    copy = shutil.copytree(folders["sdxl"], tmp_path / "base")
    shutil.rmtree(copy / "text_encoder_2")
    assert "lacks text_encoder_2" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_with_a_truncated_or_missing_part(part, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(WEIGHTS, copy)
    (file,) = (copy / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be loaded" in refusal(copy)
    file.unlink()
    assert "cannot be loaded" in refusal(copy)
