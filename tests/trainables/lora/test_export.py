"""The exported files, loaded back by diffusers itself, draw the images that the trained adapters drew."""

import json
import re

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from trainables.lora.adapters import TEXT_TARGETS, UNET_TARGETS, Adapter
from trainables.lora.export import DIFFUSERS_NAME, KOHYA_NAME, export_lora, load_lora
from trainables.lora.generation import generate
from trainables.tiny_sd import architecture
from tune_lora.errors import InputError

PROMPTS = ["glow, frontal view, happy smile", "red apple"]
RANK, ALPHA = 4, 6.0
PROVENANCE = {"tune_lora_trial": "7", "tune_lora_params": json.dumps({"learning_rate": 1e-4})}


def build_pipeline(folder):
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=architecture.build_vae(),
        text_encoder=CLIPTextModel(architecture.text_config()),
        tokenizer=architecture.write_tokenizer(folder),
        unet=architecture.build_unet(),
        scheduler=DPMSolverMultistepScheduler(**architecture.SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline):
    return generate(pipeline, PROMPTS, [1, 2], steps=4, guidance=4.0)


def attach(pipeline, *, text=True):
    """Adapters as after a long training: A and B both large, but short of where a network turns rounding into chaos."""
    adapters = [Adapter(pipeline.unet, UNET_TARGETS, RANK, ALPHA, 1e-3).attach(0)]
    if text:
        adapters.append(Adapter(pipeline.text_encoder, TEXT_TARGETS, RANK, ALPHA, 1e-3).attach(1))
    generator = torch.Generator().manual_seed(2)
    for adapter in adapters:
        for parameter in adapter.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return adapters


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return build_pipeline(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def base_images(pipeline):
    return draw(pipeline)


@pytest.fixture(scope="module")
def trained(pipeline, base_images, tmp_path_factory):
    """Images with the adapters in, and what was exported of them in both precisions."""
    adapters = attach(pipeline)
    images, exported = draw(pipeline), {}
    for dtype in ("fp16", "fp32"):
        folder = tmp_path_factory.mktemp(dtype)
        exported[dtype] = export_lora(
            folder, unet=pipeline.unet, text_encoder=pipeline.text_encoder, rank=RANK, alpha=ALPHA,
            metadata=PROVENANCE, dtype=dtype,
        )  # fmt: skip
    for adapter in adapters:
        adapter.detach()
    return images, exported


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_loading_back_draws_the_same_images(pipeline, base_images, trained, layout, dtype):
    images, exported = trained
    path = getattr(exported[dtype], layout)
    effect = np.abs(images - base_images).mean()
    assert effect > 0.02  # the adapters really change the images
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        difference = np.abs(draw(pipeline) - images)
        if dtype == "fp32":
            assert difference.max() < 1e-5
        else:  # rounding of the weights is all that differs; it is 0.2% of what the adapters do
            assert difference.mean() < 0.01 * effect
    finally:
        pipeline.unload_lora_weights()
    assert draw(pipeline) == pytest.approx(base_images, abs=1e-6)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_our_own_loader_takes_either(pipeline, trained, layout):
    images, exported = trained
    try:
        load_lora(pipeline, getattr(exported["fp32"], layout))
        assert draw(pipeline) == pytest.approx(images, abs=1e-5)
    finally:
        pipeline.unload_lora_weights()


def test_the_folder_alone_is_enough_for_diffusers(pipeline, trained):
    images, exported = trained
    try:
        pipeline.load_lora_weights(str(exported["fp32"].diffusers.parent))
        assert draw(pipeline) == pytest.approx(images, abs=1e-5)
    finally:
        pipeline.unload_lora_weights()


def test_a_lora_without_text_encoder(pipeline, base_images, tmp_path):
    adapters = attach(pipeline, text=False)
    images = draw(pipeline)
    files = export_lora(tmp_path, unet=pipeline.unet, text_encoder=None, rank=RANK, alpha=ALPHA, dtype="fp32")
    adapters[0].detach()
    for path in (files.diffusers, files.kohya):
        assert not any("text_model" in name for name in load_file(path))
        try:
            load_lora(pipeline, path)
            assert draw(pipeline) == pytest.approx(images, abs=1e-5)
        finally:
            pipeline.unload_lora_weights()


def test_kohya_names_are_those_of_sd_scripts(trained):
    names = set(load_file(trained[1]["fp16"].kohya))
    block = r"(down_blocks_\d|mid_block|up_blocks_\d)_attentions_\d"
    inside = r"transformer_blocks_0_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2))"
    unet = rf"lora_unet_{block}_({inside}|proj_in|proj_out)"
    text = r"lora_te_text_model_encoder_layers_\d_(self_attn_(q|k|v|out)_proj|mlp_fc[12])"
    matrices = r"\.(lora_down\.weight|lora_up\.weight|alpha)"
    assert all(re.fullmatch(f"({unet}|{text}){matrices}", name) for name in names)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight" in names
    assert "lora_te_text_model_encoder_layers_2_self_attn_q_proj.alpha" in names


def test_kohya_alphas_and_shapes(trained):
    state = load_file(trained[1]["fp16"].kohya)
    stems = {name.split(".")[0] for name in state}
    assert len(state) == 3 * len(stems)
    for stem in stems:
        assert float(state[f"{stem}.alpha"]) == ALPHA and state[f"{stem}.alpha"].shape == ()
        assert state[f"{stem}.lora_down.weight"].shape[0] == state[f"{stem}.lora_up.weight"].shape[1] == RANK
        assert state[f"{stem}.lora_down.weight"].dtype == torch.float16


def test_diffusers_converter_leaves_nothing_over(trained):
    state, alphas = _convert_non_diffusers_lora_to_diffusers(load_file(trained[1]["fp16"].kohya))
    assert len(state) == 2 * len(alphas) and set(alphas.values()) == {ALPHA}


def test_text_encoder_names_have_the_level_that_other_tools_expect(trained):
    names = [name for name in load_file(trained[1]["fp16"].diffusers) if name.startswith("text_encoder.")]
    assert names and all(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)


def test_the_header_says_where_it_comes_from(trained):
    exported = trained[1]["fp16"]
    for path in (exported.diffusers, exported.kohya):
        assert PROVENANCE.items() <= metadata(path).items()
    kohya = metadata(exported.kohya)
    assert kohya["ss_network_dim"] == "4" and kohya["ss_network_alpha"] == "6"
    assert kohya["ss_network_module"] == "networks.lora" and kohya["ss_base_model_version"] == "sd_v1"
    config = json.loads(metadata(exported.diffusers)["lora_adapter_metadata"])
    assert config["unet.lora_alpha"] == config["text_encoder.lora_alpha"] == ALPHA and config["unet.r"] == RANK


def test_files_are_whole_or_absent(pipeline, tmp_path):
    adapters = attach(pipeline)
    try:
        adapters[1].parameters()[-1].data.fill_(1e6)  # no number in fp16
        with pytest.raises(ValueError, match="not finite"):
            export_lora(tmp_path, unet=pipeline.unet, text_encoder=pipeline.text_encoder, rank=RANK, alpha=ALPHA)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ValueError, match="rank 8"):
            export_lora(tmp_path, unet=pipeline.unet, text_encoder=None, rank=8, alpha=ALPHA)
        with pytest.raises(TypeError):  # a header holds strings only
            export_lora(tmp_path, unet=pipeline.unet, text_encoder=None, rank=RANK, alpha=ALPHA, metadata={"a": 1})
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            export_lora(tmp_path, unet=pipeline.unet, text_encoder=None, rank=RANK, alpha=ALPHA)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([DIFFUSERS_NAME, KOHYA_NAME])
    finally:
        for adapter in adapters:
            adapter.detach()


def test_a_model_without_adapter_cannot_be_exported(pipeline, tmp_path):
    with pytest.raises(ValueError, match="no adapter"):
        export_lora(tmp_path, unet=pipeline.unet, text_encoder=None, rank=RANK, alpha=ALPHA)


def refused(pipeline, path):
    with pytest.raises(InputError) as caught:
        load_lora(pipeline, path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


def test_what_is_no_lora_is_refused_in_one_line(pipeline, base_images, tmp_path):
    assert "does not exist" in refused(pipeline, tmp_path / "none.safetensors")
    (tmp_path / "picture.png").write_bytes(b"png")
    assert "is a .png file" in refused(pipeline, tmp_path / "picture.png")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    assert "cannot be read as safetensors" in refused(pipeline, tmp_path / "damaged.safetensors")
    save_file({"conv_in.weight": torch.zeros(4, 4)}, tmp_path / "checkpoint.safetensors")
    assert "is not a LoRA: it holds conv_in.weight" in refused(pipeline, tmp_path / "checkpoint.safetensors")
    assert (draw(pipeline) == base_images).all()


def test_a_lora_for_another_base_is_refused_in_one_line(pipeline, trained, tmp_path):
    for path in (trained[1]["fp16"].diffusers, trained[1]["fp16"].kohya):
        wider = {
            name: torch.cat([value, value], dim=1) if "lora_A" in name or "lora_down" in name else value
            for name, value in load_file(path).items()
        }
        save_file(wider, tmp_path / "wider.safetensors")
        said = refused(pipeline, tmp_path / "wider.safetensors")
        assert "do not fit this base" in said and "in the file, and from" in said
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    save_file(
        {f"{name}.lora_down.weight": torch.zeros(4, 64), f"{name}.lora_up.weight": torch.zeros(64, 4)},
        tmp_path / "sdxl.safetensors",
    )
    assert "unet has no input_blocks_1_1" in refused(pipeline, tmp_path / "sdxl.safetensors")


def test_a_lora_with_half_a_pair_is_refused(pipeline, trained, tmp_path):
    state = load_file(trained[1]["fp16"].diffusers)
    state.pop(next(name for name in state if "lora_B" in name))
    save_file(state, tmp_path / "half.safetensors")
    assert "no matching pair" in refused(pipeline, tmp_path / "half.safetensors")
