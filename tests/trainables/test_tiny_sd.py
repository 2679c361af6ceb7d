"""The embedded base: a real pipeline, small, that follows its captions, and a CLIP that shares its text encoder."""

import json

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from trainables.evaluation import load_clip
from trainables.lora import base
from trainables.lora.generation import generate
from trainables.tiny_sd import WEIGHTS, architecture, data

STYLE = data.STYLE


@pytest.fixture(scope="module")
def model():
    return base.load("tiny-sd", torch.device("cpu"))


@pytest.fixture(scope="module")
def drawn(model):
    names = ["red apple", "green apple", "blue heart", "red heart"]
    captions = [f"{name}{STYLE}" for name in names for _ in range(4)]
    images = generate(model.pipeline, captions, list(range(16)), steps=20, guidance=5.0)
    return {name: images[4 * index : 4 * index + 4] for index, name in enumerate(names)}


def test_all_weights_fit_into_25_megabytes():
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 4  # VAE, UNet, text encoder, the CLIP's image tower
    assert sum(path.stat().st_size for path in files) <= 25e6


def test_plain_diffusers_loads_it():
    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert json.loads((WEIGHTS / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_the_tokenizer_is_open_clips():
    tokenizer = CLIPTokenizer.from_pretrained(str(WEIGHTS / "tokenizer"))
    theirs = open_clip.SimpleTokenizer(context_length=architecture.CONTEXT_LENGTH)
    texts = ["smiley, face with tightly-closed eyes", "Red Apple's 3D render!", "été", ""]
    for text in texts:
        ids = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        count = int((theirs(text)[0] != 0).sum())
        assert ids[:count].tolist() == theirs(text)[0][:count].tolist()


def test_the_text_tower_survives_the_way_to_transformers_and_back():
    clip = architecture.build_clip().eval()
    again = architecture.clip_from_parts(architecture.text_tower_to_hf(clip), architecture.image_tower_state(clip))
    tokens = open_clip.SimpleTokenizer(context_length=architecture.CONTEXT_LENGTH)(["red apple", "a cat"])
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again.encode_text(tokens), clip.encode_text(tokens))
        torch.testing.assert_close(again.encode_image(image), clip.encode_image(image))


def colour(images):
    """Mean colour of what is not background."""
    pixels = images.reshape(-1, 3)
    return pixels[pixels.min(1) < 0.8].mean(0)


CHANNELS = [("red apple", 0), ("green apple", 1), ("red heart", 0), ("blue heart", 2)]


@pytest.mark.parametrize(("name", "channel"), CHANNELS)
def test_colours_follow_the_caption(drawn, name, channel):
    assert colour(drawn[name]).argmax() == channel


def test_a_red_apple_is_round(drawn):
    for image in drawn["red apple"]:
        figure = image.min(-1) < 0.8
        rows, columns = np.where(figure.any(1))[0], np.where(figure.any(0))[0]
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.65 < width / height < 1.5
        # A disc fills pi/4 of its box; a bar, a ring or scattered dots do not.
        assert figure[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.6


def test_what_is_generated_is_recognised_among_sixteen(model, data_renders):
    captions = [render.captions()[0] for render in data_renders[:32]]
    images = generate(model.pipeline, captions, list(range(32)), steps=15, guidance=5.0)
    clip = load_clip()
    similarity = clip.images(images) @ clip.texts(captions).T
    hits = [similarity[i : i + 16, i : i + 16].argmax(1) == np.arange(16) for i in (0, 16)]
    assert np.mean(hits) > 0.5  # chance is 1/16


@pytest.fixture(scope="module")
def data_renders(request):
    folder = request.getfixturevalue("data") / "fluent3d" / "base"
    return data.load(folder)[0]
