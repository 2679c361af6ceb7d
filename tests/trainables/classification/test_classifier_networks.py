"""Encoders: what they keep, what they are blind to, and which weights fit them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from trainables.classification import backbones, text_encoders
from trainables.classification.network import Network, Shape
from trainables.classification.settings import TORCHVISION, chosen
from tune_lora.errors import InputError


@pytest.mark.parametrize("architecture", TORCHVISION)
def test_a_state_dict_of_torchvision_fills_the_backbone_and_leaves_its_head_out(architecture, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = getattr(models, architecture)(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    mine, width = backbones.build(architecture)
    said = backbones.fill(mine, backbones.load_state(tmp_path / "weights.pth"), architecture, "weights.pth")
    assert said.endswith("; 2 of its last layer left out")
    images = torch.randn(2, 3, 32, 32)
    head = theirs.fc if architecture.startswith("resnet") else theirs.classifier[-1]
    with torch.no_grad():
        features = mine.eval()(images)
        assert features.shape == (2, width)
        torch.testing.assert_close(head(features), theirs(images))


def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    backbone, _ = backbones.build("resnet34")
    with pytest.raises(InputError, match=r"does not fit resnet34: .* tensors are missing") as raised:
        backbones.fill(backbone, backbones.load_state(tmp_path / "resnet18.pth"), "resnet34", "resnet18.pth")
    assert "\n" not in str(raised.value)
    narrow, _ = backbones.build("resnet_mini", "8_16")
    wide, _ = backbones.build("resnet_mini", "8_32")
    with pytest.raises(InputError, match=r"have other shapes \(such as layer2.0.conv1.weight: got \(32, 8, 3, 3\)"):
        backbones.fill(narrow, wide.state_dict(), "resnet_mini", "wide.pth")


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, said in (("none.pth", "does not exist"), ("text.pth", "cannot be read"), ("list.pth", "holds list")):
        with pytest.raises(InputError, match=said):
            backbones.load_state(tmp_path / name)


def test_the_bag_of_words_is_blind_to_order_and_the_others_are_not() -> None:
    torch.manual_seed(0)
    texts = ["red dog bites", "bites dog red"]
    for name, is_same in (("mlp", True), ("char_cnn", False), ("transformer", False)):
        encoder = text_encoders.build(name, 8, 32, 0.0).eval()
        with torch.no_grad():
            one, other = encoder(text_encoders.ids_of(name, texts, 32))
        assert torch.allclose(one, other, atol=1e-6) == is_same, name


@pytest.mark.parametrize("name", ["mlp", "char_cnn", "transformer"])
def test_texts_of_any_kind_become_finite_latents_and_cases_are_one(name) -> None:
    encoder = text_encoders.build(name, 8, 16, 0.0).eval()
    texts = ["", "日本語 emoji 🙂", "x" * 500, "Red Dog", "red dog"]
    with torch.no_grad():
        found = encoder(text_encoders.ids_of(name, texts, 16))
    assert found.isfinite().all()
    torch.testing.assert_close(found[3], found[4])


def test_padding_says_nothing_to_the_transformer() -> None:
    torch.manual_seed(0)
    encoder = text_encoders.build("transformer", 8, 32, 0.0).eval()
    ids = text_encoders.byte_ids(["short"], 32)
    with torch.no_grad():
        before = encoder(ids)
        encoder.places[5:] += 10
        torch.testing.assert_close(encoder(ids), before)


def test_backbone_and_new_layers_are_groups_of_their_own_and_nothing_is_left_out() -> None:
    settings = chosen({"lr_backbone": 1e-4, "lr_new": 1e-3, "lambda_fit": 1e-3, "widths": "4_8"})
    network = Network(Shape("image_text", 3), settings)
    backbone, new = network.parameter_groups(settings.rates)
    assert (backbone["lr"], new["lr"]) == (1e-4, 1e-3)
    own = {id(parameter) for parameter in network.encoders["image"].parameters()}
    assert {id(parameter) for parameter in backbone["params"]} == own
    assert own | {id(p) for p in new["params"]} == {id(p) for p in network.parameters()}
    assert any(parameter is network.anchors for parameter in new["params"])


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_an_image_with_text_has_a_fused_latent_and_a_head_for_each(fusion) -> None:
    network = Network(Shape("image_text", 3), chosen({"latent_dim": 8, "fusion": fusion, "widths": "4_8"})).eval()
    out = network({"image": torch.randn(2, 3, 16, 16), "text": text_encoders.word_ids(["a", "b"], 8)})
    assert out.logits.shape == (2, 3) and out.latent.shape == (2, 8)
    assert {name: tuple(logits.shape) for name, (logits, _) in out.alone.items()} == {"image": (2, 3), "text": (2, 3)}
    if fusion == "mean":
        torch.testing.assert_close(out.latent, (out.alone["image"][1] + out.alone["text"][1]) / 2)
