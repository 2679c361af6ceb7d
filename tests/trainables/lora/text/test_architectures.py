"""Models that are not built as most are: linear layers laid out the other way (GPT-2), read in place of called (Mamba),
one for three (GPT-NeoX), or kept as one tensor (mixtures of experts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    MambaConfig,
    MixtralConfig,
)

from tests.trainables.lora.text import small_model
from trainables.llm_lora import LlmLora
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.text import base as bases
from trainables.lora.text.export import export_adapter, export_merged
from trainables.lora.text.settings import TextSettings
from trainables.protocol import TrialContext
from tune_lora.errors import InputError

WIDTH, LAYERS, HEADS, POSITIONS = 64, 2, 2, 96
IDS = torch.tensor([[5, 9, 60, 33, 7, 12, 80]])
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
USUAL = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 128}
CONFIGS = {
    "gpt2": lambda **more: GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS, **more),
    "gpt-neo": lambda **more: GPTNeoConfig(
        hidden_size=WIDTH, num_layers=LAYERS, num_heads=HEADS, attention_types=[[["global", "local"], 1]], **more
    ),
    "gpt-neox": lambda **more: GPTNeoXConfig(**USUAL, **more),
    "mamba": lambda **more: MambaConfig(hidden_size=WIDTH, state_size=4, num_hidden_layers=LAYERS, **more),
    "mixtral": lambda **more: MixtralConfig(**USUAL, num_key_value_heads=1, num_local_experts=4, **more),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request, tmp_path_factory) -> Path:
    return write(request.param, tmp_path_factory.mktemp(request.param) / request.param)


def write(name: str, folder: Path) -> Path:
    """A small model with random weights and its tokenizer."""
    tokenizer = small_model.tokenizer()
    torch.manual_seed(0)
    config = CONFIGS[name](vocab_size=len(tokenizer), **TOKENS)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@torch.no_grad()
def trained(base: bases.TextBase, **options: bool) -> Adapter:
    """An adapter with something in all of its tensors."""
    part = Part("model", base.model, 1e-3, LoraShape(4, 8.0, **options), base.targets("all"))
    adapter = Adapter([part]).attach(0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return adapter


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_every_reader_of_what_is_exported_says_what_was_trained(model: Path, tmp_path: Path, dora: bool) -> None:
    base = bases.load(str(model))
    plain = logits(base.model)
    adapter = trained(base, dora=dora)
    expected = logits(base.model)
    export_adapter(tmp_path / "lora", base, adapter, {})
    export_merged(tmp_path / "merged", base, adapter, {})
    adapter.detach()
    assert (expected - plain).abs().max() > 0.05
    torch.testing.assert_close(logits(base.model), plain, rtol=0, atol=0)
    through_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path / "lora")
    torch.testing.assert_close(logits(through_peft), expected, rtol=1e-4, atol=1e-5)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


def test_it_learns(model: Path, questions: Path, tmp_path: Path) -> None:
    trainer = LlmLora(str(model), str(questions), TextSettings(max_length=64), report_every=8)
    params = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 5e-3, "max_steps": 8, "batch_size": 4}
    shared: dict[str, Any] = {}
    base = trainer.prepare(TrialContext(params, tmp_path, shared=shared))["baseline"]
    (last,) = trainer.run(TrialContext(params, tmp_path, seed=1, shared=shared))
    assert last.metrics["val_loss"] < base["val_loss"] - 0.05


def test_experts_in_one_tensor_are_named_as_without_an_adapter(tmp_path: Path) -> None:
    (note,) = bases.load(str(write("mixtral", tmp_path / "mixtral"))).notes()
    assert note.startswith("experts (MixtralExperts) get no LoRA")
    assert bases.load(str(write("gpt-neox", tmp_path / "neox"))).notes() == []


def test_weights_that_mamba_reads_are_left_out(tmp_path: Path) -> None:
    base = bases.load(str(write("mamba", tmp_path / "mamba")))
    ends = {name.rpartition(".")[2] for name, _ in base.targets("all").layers(base.model)}
    assert ends == {"in_proj", "x_proj"}
    with pytest.raises(InputError, match="MambaForCausalLM has no linear layer for lora_targets attention"):
        base.targets("attention")


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_gpt2_is_merged_whole(tmp_path: Path, kind: str) -> None:
    base = bases.load(str(write("gpt2", tmp_path / "gpt2")), quantization=kind)
    plain = logits(base.model)
    adapter = trained(base)
    expected = logits(base.model)
    export_merged(tmp_path / "merged", base, adapter, {})
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(merged) - expected).abs().mean() < 0.1 * (expected - plain).abs().mean()
