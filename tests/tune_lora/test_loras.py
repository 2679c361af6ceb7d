"""LoRA files in use: drawn with at the size they were trained at, and scored beside the untrained base."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from trainables import demo_character
from trainables.lora import base as bases
from trainables.lora.adapters import Adapter, LoraShape, Part
from trainables.lora.export import export_lora
from trainables.lora.kohya_layout import training_header
from trainables.lora.targets import UNET
from tune_lora import lora_view, loras
from tune_lora.errors import InputError

PROMPTS = ("bobo, side view", "bobo, frontal view")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    demo_character.write_dataset(folder, count=8, size=64)
    return folder


pytestmark = pytest.mark.usefixtures("private_cache")


def made(folder: Path, *, size: float = 0.02, resolution: tuple[int, int] = (64, 64)) -> Path:
    """A LoRA of tiny-sd with weights of this size."""
    base = bases.load("tiny-sd", torch.device("cpu"))
    adapter = Adapter([Part("unet", base.unet, 1e-3, LoraShape(4, 2.0), UNET["all"])]).attach(0)
    for parameter in adapter.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * size
    training = training_header(
        {}, steps=10, seed=0, precision="fp32", resolution=resolution, images=8, base="tiny-sd"
    )  # fmt: skip
    return export_lora(folder, adapter, training=training, dtype="fp32").kohya


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("lora"))


def test_it_draws_at_the_size_it_was_trained_at_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.lora import generation

    seen = []
    real = generation.generate
    monkeypatch.setattr(generation, "generate", lambda *a, **kw: seen.append(real(*a, **kw)) or seen[-1])
    file = made(tmp_path, resolution=(96, 64))
    for size in (None, "64", "64x96"):
        loras.generate(file, output=tmp_path / "a.png", prompts=PROMPTS, n=2, steps=2, size=size)
    assert [drawn.shape[1:3] for drawn in seen] == [(64, 96), (64, 64), (96, 64)]  # height, width


@pytest.mark.parametrize("size", ["big", "100", "64x", "0", "4096"])
def test_a_size_that_is_none_is_one_line(lora: Path, tmp_path: Path, size: str) -> None:
    with pytest.raises(InputError, match="--size: got"):
        loras.generate(lora, output=tmp_path / "a.png", prompts=PROMPTS, size=size)


@pytest.mark.parametrize("said", [{"precision": "bf16"}, {"fixed": {"precision": "bf16"}}], ids=["study", "fixed"])
def test_the_base_is_held_as_the_study_has_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict
) -> None:
    seen = []
    real = bases.load
    monkeypatch.setattr(bases, "load", lambda *a, **kw: seen.append(real(*a, **kw)) or seen[-1])
    made(tmp_path / "trained" / "lora")
    seen.clear()
    document = {"name": "mine", "dataset": {"path": str(images)}, "space": "lora_tiny"} | said
    (tmp_path / "trained" / "study.yaml").write_text(yaml.safe_dump(document))
    loras.generate(tmp_path / "trained", output=tmp_path / "a.png", prompts=PROMPTS[:1], n=1, steps=1)
    loras.evaluate(tmp_path / "trained", output=tmp_path / "b.png", n=2)
    assert [base.unet.dtype for base in seen] == [torch.bfloat16] * 2


def test_a_file_is_scored_by_a_dataset(lora: Path, images: Path, tmp_path: Path) -> None:
    found = loras.evaluate(lora, output=tmp_path / "sheet.png", dataset=images, n=3, seed=5)
    assert {"score", "identity", "val_loss", "failures", "lpips_diversity", "clip_consistency"} <= set(found.metrics)
    assert set(found.baseline) == set(found.metrics) and found.baseline != found.metrics
    assert len(found.prompts) == 3 and found.facts["rank"] == 4
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 160  # the base, and the LoRA under it
    again = loras.evaluate(lora, output=tmp_path / "again.png", dataset=images, n=3, seed=5)
    assert again.metrics == pytest.approx(found.metrics)


def test_the_same_file_in_another_layout_or_naming_scores_the_same(lora: Path, tmp_path: Path) -> None:
    renamed = {
        name.replace("lora_unet_", "lycoris_"): value for name, value in load_file(lora).items()
    }  # as LyCORIS names what it was given whole
    save_file(renamed, tmp_path / "elsewhere.safetensors")
    scores = [
        loras.evaluate(file, output=tmp_path / "sheet.png", prompts=PROMPTS, n=2, size="64").metrics
        for file in (lora, lora.with_name("pytorch_lora_weights.safetensors"), tmp_path / "elsewhere.safetensors")
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[0] == pytest.approx(scores[2], rel=1e-4)


def test_without_references_there_is_no_likeness(lora: Path, tmp_path: Path) -> None:
    found = loras.evaluate(lora, output=tmp_path / "sheet.png", prompts=PROMPTS, n=2)
    assert "identity" not in found.metrics and "val_loss" not in found.metrics and "score" in found.metrics


def test_what_a_person_is_shown(lora: Path, images: Path, tmp_path: Path) -> None:
    found = loras.evaluate(lora, output=tmp_path / "sheet.png", dataset=images, n=2)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(lora_view.evaluation(found))
    shown = console.export_text()
    assert "rank 4, alpha 2 (ratio 0.500)" in shown and "base tiny-sd (sd_v1)" in shown and "10 steps" in shown
    low, high = found.bands["lpips_diversity"]
    (line,) = [line for line in shown.splitlines() if line.startswith("lpips_diversity")]
    assert line.endswith("in" if low <= found.metrics["lpips_diversity"] <= high else "out")
    assert "no image failed" in shown and "sheet.png" in shown
    assert json.loads(json.dumps(found.as_dict()))["measures"]["score"]["value"] == found.metrics["score"]


def test_a_lora_that_destroys_the_images_is_told_apart(images: Path, tmp_path: Path) -> None:
    found = loras.evaluate(made(tmp_path, size=1e4), output=tmp_path / "sheet.png", dataset=images, n=2)
    assert found.metrics["failures"] == 1.0 and found.baseline["failures"] == 0.0
    assert len(found.failures) == 2 and found.failures[0].startswith("image 1 (")
    assert (tmp_path / "sheet.png").is_file()


def test_mistakes_are_one_line_each_and_nothing_is_drawn(lora: Path, images: Path, tmp_path: Path) -> None:
    study = tmp_path / "text.yaml"
    study.write_text(yaml.safe_dump({"name": "c", "trainer": "curve", "space": "lora_tiny"}))
    sheet = tmp_path / "sheet.png"
    for options, said in [
        ({}, "no prompts are known; give some with --prompt, or --study, or --dataset"),
        ({"dataset": images, "study": study}, "must be one of them"),
        ({"study": study}, "must be one of diffusion_lora"),
        ({"dataset": tmp_path / "absent"}, "does not exist"),
        ({"dataset": images, "base": "absent"}, "base 'absent' does not exist"),
    ]:
        with pytest.raises(InputError) as caught:
            loras.evaluate(lora, output=sheet, **options)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    with pytest.raises(InputError, match=r"is a \.png file"):
        loras.evaluate(picture, output=sheet)
    assert not sheet.exists()
