"""Folders as people have them: old names, shards, half-precision variants; and what identifies a base."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainables.lora import tiny_bases
from trainables.lora import base
from trainables.lora.base_weights import identity_of

CPU = torch.device("cpu")
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny_bases.write_folder("sdxl", tmp_path_factory.mktemp("base") / "sdxl")


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def weights(folder: Path, dtype=torch.float32) -> dict[str, torch.Tensor]:
    loaded = base.load(str(folder), CPU, dtype=dtype)
    models = {**loaded.models, "vae": loaded.vae}
    return {f"{part}.{name}": tensor for part, model in models.items() for name, tensor in model.state_dict().items()}


def rewrite(folder: Path, change) -> None:
    (file,) = folder.glob("*.safetensors")
    state = change(load_file(file))
    file.unlink()
    save_file({name: value.contiguous() for name, value in state.items()}, file, {"format": "pt"})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_text_encoders_and_autoencoders_under_their_old_names(original, copy):
    def old_attention(name):
        for ours, old in OLD_ATTENTION.items():
            name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid_block.attentions.0.{old}.")
        return name

    for part in ("text_encoder", "text_encoder_2"):
        rewrite(copy / part, lambda state: {
            "text_model.embeddings.position_ids": torch.arange(77)[None],
            **{name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": value
               for name, value in state.items()},
        })  # fmt: skip
    rewrite(copy / "vae", lambda state: {old_attention(name): value for name, value in state.items()})
    assert any(".query." in name for name in load_file(next((copy / "vae").glob("*.safetensors"))))
    assert_same(weights(copy), weights(original))


def test_weights_in_several_files(original, copy):
    for part, model in base.load(str(original), CPU).models.items():
        shutil.rmtree(copy / part)
        model.save_pretrained(copy / part, max_shard_size="300KB")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 1
    assert_same(weights(copy), weights(original))


def test_a_folder_that_has_its_half_precision_variant_only(original, copy):
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        rewrite(copy / part, lambda state: {name: value.half() for name, value in state.items()})
        (file,) = (copy / part).glob("*.safetensors")
        file.rename(file.with_suffix(".fp16.safetensors"))
    for dtype in (torch.float32, torch.float16):
        expected = {name: value.half().to(value.dtype) for name, value in weights(original, dtype).items()}
        assert_same(weights(copy, dtype), expected)


def test_a_damaged_copy_in_the_cache_is_made_again(original, tmp_path):
    expected = {name: value.clone() for name, value in weights(original, torch.bfloat16).items()}
    stored = list((tmp_path / "cache" / "bases").rglob("*.safetensors"))
    assert len(stored) == 3  # the autoencoder lies in the folder as it is needed
    for path in stored:
        cut = path.with_suffix(".cut")
        cut.write_bytes(path.read_bytes()[:-100])
        cut.replace(path)
    assert_same(weights(original, torch.bfloat16), expected)


def age(path: Path, seconds: float) -> None:
    """As if it had been written so long ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_digest_is_remembered_until_the_file_changes(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"first")
    age(path, 60)
    first = identity_of(path)
    assert identity_of(path) == first
    assert list((tmp_path / "cache" / "digests").iterdir())
    path.write_bytes(b"other")
    assert identity_of(path) != first
    other = tmp_path / "renamed.safetensors"
    other.write_bytes(b"first")
    assert identity_of(other) == first


def test_a_damaged_note_of_a_digest_is_not_believed(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"first")
    age(path, 60)
    first = identity_of(path)
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    for damage in ("", "[]", "{}"):
        note.write_text(damage)
        assert identity_of(path) == first


@pytest.mark.parametrize(
    "changed", ["tokenizer/tokenizer_config.json", "vae/config.json", "text_encoder_2/config.json"]
)
def test_the_identity_of_a_folder_follows_all_that_latents_and_texts_depend_on(changed, original, copy):
    before = identity_of(original)
    assert identity_of(copy) == before
    path = copy / changed
    path.write_text(path.read_text() + " ")
    assert identity_of(copy) != before


def test_the_identity_of_a_folder_does_not_follow_the_scheduler(original, copy):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text() + " ")
    assert identity_of(copy) == identity_of(original)
