"""What is exported says exactly what was trained: through peft, and merged into the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainables.lora.text import small_model
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.text import base as bases
from trainables.lora.text.export import export_adapter, export_merged, load_adapter, provenance_of
from tune_lora.errors import InputError

IDS = torch.tensor([[5, 9, 60, 33, 7, 12, 80]])
SHAPES = {
    "lora": (LoraShape(4, 8.0), "all"),
    "attention": (LoraShape(4, 8.0), "attention"),
    "dora": (LoraShape(4, 8.0, dora=True), "all"),
    "rslora": (LoraShape(4, 8.0, rslora=True), "all"),
    "dora-rslora": (LoraShape(4, 8.0, dora=True, rslora=True), "all"),
    "alpha-above-rank": (LoraShape(2, 32.0, dropout=0.1), "all"),
    "ranks": (LoraShape(4, 8.0, ranks={"model.layers.0": 2, "model.layers.1.mlp": 0}), "all"),
    "ranks-rslora": (LoraShape(4, 8.0, rslora=True, ranks={"model.layers.0": 9}), "all"),
}


@pytest.fixture
def base(folder: Path):
    return bases.load(str(folder))


def trained(base, name: str) -> Adapter:
    """An adapter with something in all of its tensors."""
    shape, which = SHAPES[name]
    adapter = Adapter([Part("model", base.model, 1e-3, shape, base.targets(which))]).attach(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return adapter


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("name", SHAPES)
def test_peft_loads_the_adapter_and_says_the_same(base, folder: Path, tmp_path: Path, name: str) -> None:
    plain = logits(base.model)
    adapter = trained(base, name)
    expected = logits(base.model)
    export_adapter(tmp_path / "lora", base, adapter, {})
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "lora")
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_the_merged_model_loads_alone_and_says_the_same(base, folder: Path, tmp_path: Path, name: str) -> None:
    plain = logits(base.model)
    adapter = trained(base, name)
    expected = logits(base.model)
    export_merged(tmp_path / "merged", base, adapter, {})
    adapter.detach()
    torch.testing.assert_close(logits(base.model), plain, rtol=0, atol=0)  # the shared base is what it was
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("fig").input_ids == base.tokenizer("fig").input_ids
    assert len(merged.state_dict()) == len(base.model.state_dict())


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_is_merged_whole(tmp_path: Path, kind: str) -> None:
    folder = small_model.write_model(tmp_path / "wide", **small_model.WIDE)
    base = bases.load(str(folder), quantization=kind)
    plain = logits(base.model)
    adapter = trained(base, "lora")
    expected = logits(base.model)
    export_merged(tmp_path / "merged", base, adapter, {})
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    # Low-bit products round on their way, whole ones do not: that is small beside what the adapter does.
    assert (logits(merged) - expected).abs().mean() < 0.1 * (expected - plain).abs().mean()


def test_an_untrained_rank_pattern_is_not_written(base, tmp_path: Path) -> None:
    export_adapter(tmp_path, base, trained(base, "lora"), {"trial": "3"})
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["rank_pattern"] == {} and config["alpha_pattern"] == {}
    assert provenance_of(tmp_path) == {"trial": "3"} and provenance_of(tmp_path.parent) == {}


def test_our_own_adapter_is_read_back(base, folder: Path, tmp_path: Path) -> None:
    adapter = trained(base, "dora")
    expected = logits(base.model)
    export_adapter(tmp_path, base, adapter, {})
    again = bases.load(str(folder))
    load_adapter(again, tmp_path)
    torch.testing.assert_close(logits(again.model), expected, rtol=1e-4, atol=1e-5)


def test_a_folder_that_holds_no_adapter_is_refused(base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no adapter_model"):
        load_adapter(base, tmp_path)


def test_an_adapter_of_another_model_is_refused(base, tmp_path: Path) -> None:
    wider = small_model.write_model(tmp_path / "wider", hidden_size=64)
    export_adapter(tmp_path / "lora", base, trained(base, "lora"), {})
    with pytest.raises(InputError, match="does not fit the base wider"):
        load_adapter(bases.load(str(wider)), tmp_path / "lora")
