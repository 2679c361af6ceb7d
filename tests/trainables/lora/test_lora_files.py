"""LoRA files made elsewhere: every known spelling is read, and what is not read is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainables.lora import pipelines
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.export import export_lora
from trainables.lora.lora_files import load_lora
from trainables.lora.lora_tensors import read_lora
from trainables.lora.targets import CLIP_TEXT, UNET
from tune_lora.errors import InputError

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = QUERY.replace(".", "_")
CONVOLUTION = "mid_block.resnets.0.conv1"
WIDTH = 128


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return pipelines.stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return pipelines.stable_diffusion_xl(tmp_path_factory.mktemp("sdxl"))


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(scope="module")
def exported(pipeline, tmp_path_factory):
    shape = LoraShape(4, 2.0, dora=True)
    parts = [
        Part("unet", pipeline.unet, 1.0, shape, UNET["all"]),
        Part("text_encoder", pipeline.text_encoder, 1.0, shape, CLIP_TEXT["all"]),
    ]
    adapter = Adapter(parts).attach(0)
    try:
        return export_lora(tmp_path_factory.mktemp("exported"), adapter, metadata={"tune_lora_trial": "7"})
    finally:
        adapter.detach()


def delta(pipeline, tensors, folder, *, part="unet", name=QUERY, header=None):
    """What a file of these tensors adds to one weight of the base."""
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "made.safetensors", header)
    adapter = load_lora(pipeline, folder / "made.safetensors")
    try:
        return adapter.layers()[part][name].delta()
    finally:
        adapter.detach()


@pytest.mark.parametrize(
    ("stem", "down", "up"),
    [
        (f"lora_unet_{FLAT}", ".lora_down.weight", ".lora_up.weight"),
        (f"lycoris_{FLAT}", ".lora_down.weight", ".lora_up.weight"),
        ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", ".lora_down.weight", ".lora_up.weight"),
        ("diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q", ".lora_A.weight", ".lora_B.weight"),
        (f"unet.{QUERY}", ".lora_A.weight", ".lora_B.weight"),
        (f"unet.{QUERY}", ".lora.down.weight", ".lora.up.weight"),
        (f"unet.{QUERY.replace('.to_q', '.processor.to_q')}", "_lora.down.weight", "_lora.up.weight"),
    ],
)
def test_every_spelling_of_a_module_is_known(pipeline, tmp_path, stem, down, up):
    a, b = random(3, WIDTH), random(WIDTH, 3)
    found = delta(pipeline, {f"{stem}{down}": a, f"{stem}{up}": b}, tmp_path)
    assert torch.allclose(found, b @ a, atol=1e-4)  # without an alpha, alpha is the rank


@pytest.mark.parametrize(
    "stem",
    [
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj",
        "lora_te1_text_model_encoder_layers_1_self_attn_q_proj",
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj",
        "text_encoder.encoder.layers.1.self_attn.to_q",
    ],
)
def test_every_spelling_of_a_text_module_is_known(pipeline, tmp_path, stem):
    a, b = random(3, 80), random(80, 3)
    tensors = {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}
    (name,) = [n for n, _ in pipeline.text_encoder.named_modules() if n.endswith("layers.1.self_attn.q_proj")]
    assert torch.allclose(delta(pipeline, tensors, tmp_path, part="text_encoder", name=name), b @ a, atol=1e-4)


def test_alpha_of_a_tensor_and_of_diffusers_header(pipeline, tmp_path):
    a, b = random(4, WIDTH), random(WIDTH, 4)
    flat = {f"lora_unet_{FLAT}.lora_down.weight": a, f"lora_unet_{FLAT}.lora_up.weight": b}
    found = delta(pipeline, flat | {f"lora_unet_{FLAT}.alpha": torch.tensor(1.0)}, tmp_path)
    assert torch.allclose(found, 0.25 * b @ a, atol=1e-4)
    peft = {f"unet.{QUERY}.lora_A.weight": a, f"unet.{QUERY}.lora_B.weight": b}
    for said, scale in [
        ({"unet.lora_alpha": 2}, 0.5),
        ({"unet.lora_alpha": 2, "unet.use_rslora": True}, 1.0),
        ({"unet.lora_alpha": 2, "unet.alpha_pattern": {QUERY: 12}}, 3.0),
        ({"text_encoder.lora_alpha": 2}, 1.0),
    ]:
        found = delta(pipeline, peft, tmp_path, header={"lora_adapter_metadata": json.dumps(said)})
        assert torch.allclose(found, scale * b @ a, atol=1e-3), said


def test_matrices_written_as_convolutions_and_the_other_way_round(pipeline, tmp_path):
    a, b = random(3, WIDTH), random(WIDTH, 3)
    as_convolution = {
        f"lora_unet_{FLAT}.lora_down.weight": a[:, :, None, None],
        f"lora_unet_{FLAT}.lora_up.weight": b[:, :, None, None],
    }
    assert torch.allclose(delta(pipeline, as_convolution, tmp_path), b @ a, atol=1e-4)
    as_matrix = {
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": a,
        "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": b,
    }
    found = delta(pipeline, as_matrix, tmp_path, name="mid_block.attentions.0.proj_in")
    assert torch.allclose(found[..., 0, 0], b @ a, atol=1e-4)


def test_the_three_matrices_of_a_tucker_decomposition(pipeline, tmp_path):
    stem = "lora_unet_mid_block_resnets_0_conv1"
    down, mid, up = random(2, WIDTH, 1, 1), random(2, 2, 3, 3), random(WIDTH, 2, 1, 1)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_mid.weight": mid, f"{stem}.lora_up.weight": up}
    found = delta(pipeline, tensors, tmp_path, name=CONVOLUTION)
    pixels = random(1, WIDTH, 5, 5)
    expected = torch.conv2d(torch.conv2d(torch.conv2d(pixels, down), mid, padding=1), up)
    assert torch.allclose(torch.conv2d(pixels, found, padding=1), expected, atol=1e-2)


def test_the_facts_of_a_file(exported):
    facts = read_lora(exported.kohya).facts()
    assert (facts["rank"], facts["alpha"], facts["trainer"]) == (4, 2.0, "tune-lora")
    assert facts["dora"] and facts["base_version"] == "sd_v1" and facts["convolutions"] == 0
    # Diffusers' layout says alpha in its header, part by part.
    assert read_lora(exported.diffusers).facts()["alpha"] == 2.0


@pytest.mark.parametrize(
    ("said", "size"), [("(512, 768)", (512, 768)), ("512", (512, 512)), ("", None), ("large", None)]
)
def test_the_resolution_it_was_trained_at(tmp_path, said, size):
    stem = f"lora_unet_{FLAT}"
    tensors = {f"{stem}.lora_down.weight": random(2, 8), f"{stem}.lora_up.weight": random(8, 2)}
    save_file(tensors, tmp_path / "made.safetensors", {"ss_resolution": said})
    assert read_lora(tmp_path / "made.safetensors").resolution == size


def refused(pipeline, path):
    before = [name for name, _ in pipeline.unet.named_modules()]
    with pytest.raises(InputError) as caught:
        load_lora(pipeline, path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert [name for name, _ in pipeline.unet.named_modules()] == before  # the pipeline is untouched
    return str(caught.value)


def test_what_is_no_lora_is_refused_in_one_line(pipeline, tmp_path):
    assert "does not exist" in refused(pipeline, tmp_path / "none.safetensors")
    (tmp_path / "picture.png").write_bytes(b"png")
    assert "is a .png file" in refused(pipeline, tmp_path / "picture.png")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    assert "cannot be read as safetensors" in refused(pipeline, tmp_path / "damaged.safetensors")
    save_file({"conv_in.weight": torch.zeros(4, 4)}, tmp_path / "checkpoint.safetensors")
    assert "is not a LoRA: it holds conv_in.weight" in refused(pipeline, tmp_path / "checkpoint.safetensors")


def test_a_truncated_file_is_refused_in_one_line(pipeline, exported, tmp_path):
    whole = exported.kohya.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as safetensors" in refused(pipeline, tmp_path / "short.safetensors")


@pytest.mark.parametrize(
    ("ending", "method"),
    [
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("oft_blocks", "OFT"),
        ("on_input", "(IA)3"),
        ("diff", "full weights"),
    ],
)
def test_other_methods_are_refused_by_name(pipeline, tmp_path, ending, method):
    save_file({f"lora_unet_{FLAT}.{ending}": torch.zeros(4, 4)}, tmp_path / "other.safetensors")
    assert f"holds {method} (lora_unet_{FLAT}.{ending})" in refused(pipeline, tmp_path / "other.safetensors")


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_lora_for_another_base_is_refused_in_one_line(pipeline, exported, tmp_path, layout):
    wider = {
        name: torch.cat([value, value], dim=1) if "lora_A" in name or "lora_down" in name else value
        for name, value in load_file(getattr(exported, layout)).items()
    }
    save_file(wider, tmp_path / "wider.safetensors")
    said = refused(pipeline, tmp_path / "wider.safetensors")
    assert "do not fit this base" in said and "in the file, and from" in said


def test_a_lora_of_sdxl_on_another_base_and_the_other_way_round(pipeline, large, exported, tmp_path):
    adapter = Adapter([Part("unet", large.unet, 1.0, LoraShape(2, 2.0), UNET["all"])]).attach(0)
    files = export_lora(tmp_path, adapter)
    adapter.detach()
    said = refused(pipeline, files.kohya)
    assert "it has no lora_unet_" in said and said.endswith("it was made for sdxl_base_v1-0")
    assert "do not fit this base" in refused(large, exported.kohya)


def test_a_lora_with_half_a_pair_is_refused(pipeline, exported, tmp_path):
    state = load_file(exported.diffusers)
    state.pop(next(name for name in state if "lora_B" in name))
    save_file(state, tmp_path / "half.safetensors")
    assert "no matching pair" in refused(pipeline, tmp_path / "half.safetensors")


def test_lengths_for_some_modules_only_or_for_inputs_are_refused(pipeline, exported, tmp_path):
    state = load_file(exported.kohya)
    name = next(name for name in state if name.endswith("dora_scale"))
    save_file({other: value for other, value in state.items() if other != name}, tmp_path / "some.safetensors")
    assert "only some modules of" in refused(pipeline, tmp_path / "some.safetensors")
    save_file(state | {name: state[name].T.contiguous()}, tmp_path / "columns.safetensors")
    assert "must be one an output" in refused(pipeline, tmp_path / "columns.safetensors")


def test_an_unknown_tensor_is_not_passed_over(pipeline, exported, tmp_path):
    save_file(load_file(exported.kohya) | {"emb_params": torch.zeros(2, 4)}, tmp_path / "more.safetensors")
    assert "emb_params belongs to no pair" in refused(pipeline, tmp_path / "more.safetensors")


def test_a_read_lora_can_be_trained_on_and_written_again(pipeline, exported, tmp_path):
    adapter = load_lora(pipeline, exported.kohya, rate=1e-3)
    try:
        assert {group["lr"] for group in adapter.groups()} == {1e-3}
        again = export_lora(tmp_path, adapter)
    finally:
        adapter.detach()
    first, second = load_file(exported.kohya), load_file(again.kohya)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
