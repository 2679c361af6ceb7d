"""Exported files, loaded back by diffusers itself and by our own reader, denoise as the trained adapter did; and their
names, shapes and headers are those that other tools know."""

import hashlib
import json
import re

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainables.lora import pipelines
from trainables.lora import kohya_layout
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.engine import LoraEngine
from trainables.lora.export import DIFFUSERS_NAME, KOHYA_NAME, export_lora
from trainables.lora.lora_files import load_lora
from trainables.lora.optimization import Optimization
from trainables.lora.settings import EngineSettings
from trainables.lora.targets import CLIP_TEXT, UNET

RANK, ALPHA = 4, 6.0
PROVENANCE = {"tune_lora_trial": "7", "tune_lora_params": json.dumps({"learning_rate": 1e-4})}
BLOCKS = {"mid_block": 2, "down_blocks.1": 0, "up_blocks.1.attentions": 8, "encoder.layers.0": 3}
LOCON = {"conv_rank": 2, "conv_alpha": 1.0}
OPTIONS = {
    "plain": {},
    "convolutions": LOCON,
    "rslora": {"rslora": True},
    "ranks by block": {"ranks": BLOCKS},
    "dora": {"dora": True},
    "convolutions, rslora, ranks": {**LOCON, "rslora": True, "ranks": BLOCKS},
    "all at once": {**LOCON, "rslora": True, "ranks": BLOCKS, "dora": True},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {
        "sd": pipelines.stable_diffusion(tmp_path_factory.mktemp("sd")),
        "sdxl": pipelines.stable_diffusion_xl(tmp_path_factory.mktemp("sdxl")),
    }


@pytest.fixture(scope="module")
def pipeline(bases):
    return bases["sd"]


def parts_of(pipeline, *, text=True, **options):
    shape = LoraShape(RANK, ALPHA, **options)
    parts = [Part("unet", pipeline.unet, 2e-2, shape, UNET["all"])]
    names = [name for name in ("text_encoder", "text_encoder_2") if text and hasattr(pipeline, name)]
    return parts + [Part(name, getattr(pipeline, name), 1e-2, shape, CLIP_TEXT["all"]) for name in names]


def conditioned(pipeline, ids):
    """What the UNet says of fixed latents, under the captions with these tokens."""
    generator = torch.Generator().manual_seed(5)
    latents, steps = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([10, 500])
    if not hasattr(pipeline, "text_encoder_2"):
        return pipeline.unet(latents, steps, pipeline.text_encoder(ids)[0]).sample
    first = pipeline.text_encoder(ids, output_hidden_states=True)
    second = pipeline.text_encoder_2(ids, output_hidden_states=True)
    states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    added = {"text_embeds": second[0], "time_ids": torch.ones(2, 6)}
    return pipeline.unet(latents, steps, states, added_cond_kwargs=added).sample


@torch.no_grad()
def output(pipeline):
    return conditioned(pipeline, torch.arange(64).reshape(2, 32))


def trained(pipeline, *, text=True, **options):
    """An adapter after a few real steps towards noise, large enough to be seen."""
    adapter = Adapter(parts_of(pipeline, text=text, **options)).attach(0)
    engine = LoraEngine([Optimization(adapter, EngineSettings(lr_scheduler="constant", max_grad_norm=0.0), 3)])
    ids = torch.arange(64).reshape(2, 32)
    target = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(6))
    for _ in range(3):
        engine.accumulate([(conditioned(pipeline, ids) - target).square().mean()], [1.0])
        engine.step()
    return adapter


def by_diffusers(pipeline, path):
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
        return output(pipeline)
    finally:
        pipeline.unload_lora_weights()


def by_us(pipeline, path):
    adapter = load_lora(pipeline, path)
    try:
        return output(pipeline)
    finally:
        adapter.detach()


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("text", [False, True], ids=["unet", "unet and text"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("base", ["sd", "sdxl"])
def test_every_reader_denoises_as_the_trained_adapter_did(bases, base, option, text, tmp_path):
    pipeline, options = bases[base], OPTIONS[option]
    untrained = output(pipeline)
    adapter = trained(pipeline, text=text, **options)
    ours = output(pipeline)
    full, half = export_lora(tmp_path / "32", adapter, dtype="fp32"), export_lora(tmp_path / "16", adapter)
    adapter.detach()
    effect = (ours - untrained).abs().mean()
    assert effect > 0.05  # the adapter really changes what is said
    assert by_diffusers(pipeline, full.diffusers) == pytest.approx(ours, abs=1e-5)
    if not options.get("dora"):  # its converter leaves DoRA's lengths out, and warns
        assert by_diffusers(pipeline, full.kohya) == pytest.approx(ours, abs=1e-5)
    for layout in ("diffusers", "kohya"):
        assert by_us(pipeline, getattr(full, layout)) == pytest.approx(ours, abs=1e-5)
        # What is left is half a precision's rounding, next to what the adapter does.
        assert (by_us(pipeline, getattr(half, layout)) - ours).abs().mean() < 0.01 * effect
    assert torch.equal(output(pipeline), untrained)


@pytest.fixture(scope="module")
def exported(pipeline, tmp_path_factory):
    adapter = trained(pipeline)
    training = kohya_layout.training_header(
        {"optimizer_type": "AdamW8bit", "lr_scheduler": "cosine", "max_train_epochs": 12, "min_snr_gamma": 5.0,
         "noise_offset": 0.05, "zero_terminal_snr": False},
        steps=480, seed=42, precision="fp32", resolution=(512, 768), images=84, base="tiny-sd",
    )  # fmt: skip
    files = export_lora(tmp_path_factory.mktemp("exported"), adapter, metadata=PROVENANCE, training=training)
    adapter.detach()
    return files


def test_the_folder_alone_is_enough_for_diffusers(pipeline, exported):
    ours = by_us(pipeline, exported.diffusers)
    try:
        pipeline.load_lora_weights(str(exported.diffusers.parent))
        assert output(pipeline) == pytest.approx(ours, abs=1e-5)
    finally:
        pipeline.unload_lora_weights()


def test_kohya_names_are_those_of_sd_scripts(exported):
    names = set(load_file(exported.kohya))
    block = r"(down_blocks_\d|mid_block|up_blocks_\d)_attentions_\d"
    inside = r"transformer_blocks_0_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2))"
    unet = rf"lora_unet_{block}_({inside}|proj_in|proj_out)"
    text = r"lora_te_text_model_encoder_layers_\d_(self_attn_(q|k|v|out)_proj|mlp_fc[12])"
    matrices = r"\.(lora_down\.weight|lora_up\.weight|alpha)"
    assert all(re.fullmatch(f"({unet}|{text}){matrices}", name) for name in names)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight" in names
    assert "lora_te_text_model_encoder_layers_2_self_attn_q_proj.alpha" in names


def test_sdxl_names_are_those_of_its_first_release(bases, tmp_path):
    adapter = trained(bases["sdxl"], **LOCON)
    names = {name.partition(".")[0] for name in load_file(export_lora(tmp_path, adapter).kohya)}
    adapter.detach()
    assert {
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_unet_input_blocks_2_0_emb_layers_1",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_input_blocks_4_0_skip_connection",
        "lora_unet_input_blocks_8_1_transformer_blocks_1_ff_net_0_proj",
        "lora_unet_middle_block_0_out_layers_3",
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_out_0",
        "lora_unet_middle_block_2_in_layers_2",
        "lora_unet_output_blocks_0_1_proj_in",
        "lora_unet_output_blocks_2_2_conv",  # where there is attention, resampling stands behind it
        "lora_unet_output_blocks_8_0_in_layers_2",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_1_mlp_fc2",
    } <= names
    assert not [name for name in names if "down_blocks" in name or "mid_block" in name or "up_blocks" in name]


def test_shapes_are_those_of_locon_and_lycoris(bases, tmp_path):
    adapter = trained(bases["sd"], **LOCON, dora=True)
    state = load_file(export_lora(tmp_path, adapter).kohya)
    adapter.detach()
    convolution, linear = "lora_unet_mid_block_resnets_0_conv1", "lora_unet_mid_block_resnets_0_time_emb_proj"
    assert state[f"{convolution}.lora_down.weight"].shape == (2, 128, 3, 3)
    assert state[f"{convolution}.lora_up.weight"].shape == (128, 2, 1, 1)
    assert state[f"{convolution}.dora_scale"].shape == (128, 1, 1, 1)
    assert state[f"{linear}.dora_scale"].shape == (128, 1)
    assert float(state[f"{convolution}.alpha"]) == 1.0 and state[f"{convolution}.alpha"].shape == ()


def test_alpha_over_rank_is_the_scale_that_was_trained_with(pipeline, tmp_path):
    adapter = Adapter(parts_of(pipeline, rslora=True)).attach(0)
    state = load_file(export_lora(tmp_path, adapter).kohya)
    adapter.detach()
    alphas = {float(value) for name, value in state.items() if name.endswith(".alpha")}
    assert alphas == {ALPHA * RANK**0.5}  # over rank it is alpha over the root of the rank


def test_diffusers_converter_leaves_nothing_over(exported):
    state, alphas = _convert_non_diffusers_lora_to_diffusers(load_file(exported.kohya))
    assert len(state) == 2 * len(alphas) and set(alphas.values()) == {ALPHA}


def test_text_encoder_names_have_the_level_that_other_tools_expect(exported):
    names = [name for name in load_file(exported.diffusers) if name.startswith("text_encoder.")]
    assert names and all(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)


def test_the_header_says_where_it_comes_from(exported):
    for path in (exported.diffusers, exported.kohya):
        assert PROVENANCE.items() <= metadata(path).items()
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "6",
        "ss_network_args": "{}",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_learning_rate": "0.02",
        "ss_unet_lr": "0.02",
        "ss_text_encoder_lr": "0.01",
        "ss_optimizer": "AdamW8bit",
        "ss_lr_scheduler": "cosine",
        "ss_num_epochs": "12",
        "ss_steps": "480",
        "ss_mixed_precision": "no",
        "ss_min_snr_gamma": "5.0",
        "ss_noise_offset": "0.05",
        "ss_zero_terminal_snr": "False",
        "ss_seed": "42",
        "ss_resolution": "(512, 768)",
    }
    assert expected.items() <= metadata(exported.kohya).items()
    config = json.loads(metadata(exported.diffusers)["lora_adapter_metadata"])
    assert config["unet.lora_alpha"] == config["text_encoder.lora_alpha"] == ALPHA and config["unet.r"] == RANK


def test_the_header_tells_the_options(bases, tmp_path):
    adapter = Adapter(parts_of(bases["sdxl"], **OPTIONS["all at once"]), loraplus_ratio=4.0).attach(0)
    header = metadata(export_lora(tmp_path, adapter).kohya)
    adapter.detach()
    said = json.loads(header["ss_network_args"])
    assert said["conv_dim"] == "2" and float(said["conv_alpha"]) == pytest.approx(2**0.5, rel=1e-5)
    assert said["dora_wd"] == said["rs_lora"] == "True" and said["loraplus_lr_ratio"] == "4"
    assert json.loads(said["rank_by_block"]) == BLOCKS
    assert header["ss_network_module"] == "lycoris.kohya" and header["ss_base_model_version"] == "sdxl_base_v1-0"


def test_the_header_tells_what_the_base_predicts_and_what_was_left_to_the_engine(pipeline, tmp_path):
    training = kohya_layout.training_header(
        {}, steps=1, seed=0, precision="bf16", resolution=(64, 64), images=1, base="mine", velocity=True
    )
    adapter = Adapter(parts_of(pipeline)).attach(0)
    header = metadata(export_lora(tmp_path, adapter, training=training).kohya)
    adapter.detach()
    assert header["ss_base_model_version"] == "sd_v1_v" and header["ss_v_parameterization"] == "True"
    assert header["ss_optimizer"] == "AdamW" and header["ss_min_snr_gamma"] == "None"
    assert header["ss_mixed_precision"] == "bf16"


def test_the_hash_is_over_the_tensors_alone(exported):
    whole = exported.kohya.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    assert metadata(exported.kohya)["sshs_model_hash"] == hashlib.sha256(whole[start:]).hexdigest()
    assert re.fullmatch(r"[0-9a-f]{8}", metadata(exported.kohya)["sshs_legacy_hash"])


def test_files_are_whole_or_absent(pipeline, tmp_path):
    adapter = Adapter(parts_of(pipeline)).attach(0)
    try:
        with pytest.raises(TypeError):  # a header holds strings only
            export_lora(tmp_path, adapter, metadata={"a": 1})
        for _ in range(2):
            export_lora(tmp_path / "good", adapter)
        assert sorted(path.name for path in (tmp_path / "good").iterdir()) == sorted([DIFFUSERS_NAME, KOHYA_NAME])
        adapter.parameters()[-1].data.fill_(1e6)  # no number in fp16
        with pytest.raises(ValueError, match="not finite"):
            export_lora(tmp_path / "bad", adapter)
        assert not (tmp_path / "bad").exists()
    finally:
        adapter.detach()


def test_a_model_without_adapter_cannot_be_exported(pipeline, tmp_path):
    with pytest.raises(ValueError, match="no adapter"):
        export_lora(tmp_path, Adapter(parts_of(pipeline)))
