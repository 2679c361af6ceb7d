"""Bases: folders, GGUF files, hub names and the packaged model; quantised where the machine can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.trainables.lora.text import small_model
from trainables.lora.text import base as bases
from trainables.lora.text import sources
from trainables.lora.text.completions import Prompt, complete, complete_each, tokens_per_second
from trainables.lora.text.quantization import full_weight
from trainables.lora.text.sources import resolve
from tune_lora.errors import InputError


def test_a_folder_is_loaded_frozen(folder: Path) -> None:
    base = bases.load(str(folder))
    assert not base.model.training and not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.label == "small-qwen2" and len(base.identity) == 64


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_base_may_be_held_in_half_precision(folder: Path, precision: str, dtype: torch.dtype) -> None:
    assert bases.load(str(folder), precision=precision).model.dtype == dtype


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_says_nearly_the_same_and_gives_gradients(tmp_path: Path, kind: str) -> None:
    folder = small_model.write_model(tmp_path / "wide", **small_model.WIDE)
    plain, small = bases.load(str(folder)), bases.load(str(folder), quantization=kind)
    layer, whole = (base.model.model.layers[0].mlp.up_proj for base in (small, plain))
    error = (full_weight(layer) - whole.weight).abs().max() / whole.weight.abs().max()
    assert layer.weight.element_size() == 1 and 0 < error < 0.12
    with torch.no_grad():
        layer(torch.randn(1, 4, 64))  # judging comes before training, and must not change what training gets
    x = torch.randn(1, 4, 64, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, full_weight(layer).sum(0).expand_as(x), rtol=0.05, atol=0.05)


def test_the_identity_changes_with_the_weights(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert sources.identity_of(copy) == sources.identity_of(folder)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert sources.identity_of(copy) != sources.identity_of(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: "nowhere", "base 'nowhere' does not exist; must be a folder in Hugging Face's layout, a .gguf"),
        (str, "has no readable config.json"),
        (lambda path: _file(path / "a.bin"), "got a .bin file"),
        (lambda path: _folder(path, {}), "names no model_type"),
        (lambda path: _folder(path, {"model_type": "qwen2"}), "holds no weights"),
    ],
)
def test_what_is_no_base_is_one_clear_line(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(make(tmp_path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def _file(path: Path) -> str:
    path.write_bytes(b"")
    return str(path)


def _folder(path: Path, config: dict) -> str:
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def test_a_hub_model_that_cannot_be_reached_is_one_clear_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve("somebody/some-model").kind == "hub"
    with pytest.raises(InputError) as caught:
        bases.load("somebody/some-model")
    assert "is not in the local cache, and the hub cannot be reached" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_read_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be loaded as a causal language model"):
        bases.load(str(tmp_path / "broken"))


def test_a_completion_is_the_same_alone_and_in_company(folder: Path) -> None:
    from contextlib import nullcontext

    base = bases.load(str(folder))
    asked = [Prompt.asking(base, text) for text in ("What is a fig?", "What is a red plum?")]
    together = complete(base, asked, nullcontext(), max_new_tokens=6, temperature=1.0, seed=4)
    alone = [complete(base, [one], nullcontext(), max_new_tokens=6, temperature=1.0, seed=4)[0] for one in asked]
    assert together == alone
    assert tokens_per_second(base, asked[0], nullcontext()) > 0


def test_adapters_that_write_at_once_each_stop_where_they_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a batch that have ended are padded until the others have; nothing of that is theirs."""
    from contextlib import nullcontext

    base = bases.load(str(folder))
    asked = [Prompt.asking(base, text) for text in ("What is a fig?", "What is a red plum?")]
    alone = complete(base, asked, nullcontext(), max_new_tokens=6)
    assert complete_each(base, asked, nullcontext(), adapters=3, max_new_tokens=6) == [alone] * 3
    assert complete_each(base, [], nullcontext(), adapters=3) == [[]] * 3
    words = base.tokenizer("fig plum", add_special_tokens=False).input_ids
    end, pad = base.model.generation_config.eos_token_id, words[0]

    def said(ids: torch.Tensor, **_: object) -> torch.Tensor:
        written = [[words[0], end, pad, pad], [words[0], words[1], words[1], end], [words[1]] * 4]
        return torch.cat([ids, torch.tensor(written)], 1)

    monkeypatch.setattr(base.model, "generate", said)
    found = complete_each(base, asked[:1], nullcontext(), adapters=3)
    spoken = [[words[0]], [words[0], words[1], words[1]], [words[1]] * 4]
    assert found == [[base.tokenizer.decode(row).strip()] for row in spoken]


def test_the_packaged_model_knows_the_capital_of_france(smollm2: str) -> None:
    from contextlib import nullcontext

    base = bases.load(smollm2, precision="bf16")
    (said,) = complete(base, [Prompt("The capital of France is", False)], nullcontext(), max_new_tokens=4)
    assert said.startswith("Paris")


def test_a_gguf_file_is_dequantised_once(smollm2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bases.load(smollm2, precision="bf16")
    monkeypatch.setattr(bases, "_write_model", lambda *_: pytest.fail("written again"))
    monkeypatch.setattr(bases, "_write_tokenizer", lambda *_: pytest.fail("written again"))
    assert bases.load(smollm2, precision="bf16").identity == first.identity
