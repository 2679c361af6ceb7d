"""Adapters judged together measure, show and export what each would alone; who fails fails alone, and whoever is not
judged notices nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainables.lora.text import small_model
from tests.trainables.test_packed_trainers import context
from trainables import demo_character
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.llm_lora import MEASURED_BY_CLOCK, LlmLora
from trainables.lora.image_judging import images_at_once
from trainables.lora.image_session import session_for
from trainables.lora.image_task import ImageTask
from trainables.lora.text.session import session_for as text_session_for
from trainables.lora.text.settings import TextSettings
from trainables.lora.text.task import TextTask
from trainables.lora.trial import Trial
from trainables.protocol import Cause, Report, Stepped, TrialFailure

IMAGE = {"network_dim": 4, "network_alpha": 4, "learning_rate": 1e-3, "max_train_epochs": 1, "train_batch_size": 1}
IMAGES = {
    "lora": IMAGE,
    "as many": IMAGE | {"network_alpha": 2},
    "larger": IMAGE | {"network_dim": 7, "network_dropout": 0.3},
    "dora": IMAGE | {"use_dora": True},
    "texts": IMAGE | {"text_encoder_lr": 1e-3, "network_dim": 6},
    "average": IMAGE | {"ema_decay": 0.9, "conv_dim": 2},
    "pure noise": IMAGE | {"zero_terminal_snr": True},
    "black": IMAGE,
    "too large": IMAGE,
}
"""Trials that are judged at the same step."""
TEXT = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 1e-2, "batch_size": 1, "max_steps": 1}
TEXTS = {
    "lora": TEXT,
    "smaller": TEXT | {"lora_rank": 3, "lora_dropout": 0.2},
    "dora": TEXT | {"use_dora": True, "lora_targets": "attention"},
    "average": TEXT | {"ema_decay": 0.9},
    "broken": TEXT,
}


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> DiffusionLora:
    folder = tmp_path_factory.mktemp("character")
    demo_character.write_dataset(folder, count=10)
    evaluation = ImageEvaluation(n_images=2, steps=2, targets="reference")
    return DiffusionLora("tiny-sd", str(folder), evaluation=evaluation, prediction_type="v_prediction")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> LlmLora:
    folder = small_model.write_model(tmp_path_factory.mktemp("model") / "small-qwen2")
    data = small_model.write_data(tmp_path_factory.mktemp("data") / "questions.jsonl")
    return LlmLora(str(folder), str(data), TextSettings(max_length=64))


@torch.no_grad()
def as_trained(name, task):
    """Weights that do something, drawn by the trial's name; an average that is something else than the weights; and
    what is wrong with those that have something wrong."""
    drawn = torch.Generator().manual_seed(sum(map(ord, name)))
    parameters = task.adapter.parameters()
    for _ in range(2):
        for parameter in parameters:
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=drawn))
        if task.engine.lanes[0]._ema is not None:
            task.engine.lanes[0]._ema.update(1)
    if name == "black":
        parameters[-1].fill_(float("nan"))
    if name == "broken":
        parameters[0].fill_(float("nan"))
    if name == "too large":
        for layer in (layer for part in task.adapter.layers().values() for layer in part.values()):
            layer.lora_A.weight.fill_(1e5)
            layer.lora_B.weight.zero_()


def make_due(trial):
    trial.done, trial._unit_losses = trial.course.horizon, [0.5]


def judged_together(pack, seats):
    """Reports and failures of these slots."""
    stepped = Stepped()
    due = [pack._slots[slot] for slot in seats]
    for slot in due:
        make_due(slot.trial)
    pack._report(due, stepped)
    return stepped.reports | stepped.failures


def judged_alone(name, trainer, task, given):
    """The report of a trial by itself, or its failure."""
    try:
        as_trained(name, task)
        trial = Trial(task, task.engine, given, trainer.course(given.params))
        make_due(trial)
        return trial.report()
    except TrialFailure as failure:
        return failure
    finally:
        task.close()


class Noise:
    """The first latents of each image that a denoiser was given while it was watched; validation is not looked at."""

    def __init__(self, session):
        self.rows, draw = [], type(session).drawn

        def drawn(*given, **how):
            hook = session.base.unet.register_forward_pre_hook(lambda _, seen: calls.append(seen[0].clone()))
            calls = []
            try:
                return draw(session, *given, **how)
            finally:
                hook.remove()
                for call in calls[:: session.trainer.evaluation.steps]:
                    self.rows += list(call[: len(call) // 2])  # behind them the same, with prompts

        self.patched, session.drawn = session, drawn

    def stop(self):
        del self.patched.drawn
        return self.rows


def test_image_adapters_judged_together_are_what_they_are_alone(images, tmp_path):
    shared, together = {}, tmp_path / "together"
    together.mkdir()
    pack = images.pack(context(IMAGE, 99, tmp_path, shared))
    bystander = pack.join(context(IMAGE | {"text_encoder_lr": 1e-3, "network_dropout": 0.5}, 50, together, shared))
    seats = {name: pack.join(context(IMAGES[name], seed, together, shared)) for seed, name in enumerate(IMAGES)}
    for name, slot in seats.items():
        as_trained(name, pack._slots[slot].task)
    before = pack.state(bystander)["trial"]["lanes"][0]["adapter"]
    weights = {slot: pack._slots[slot].task.adapter.state() for slot in seats.values()}
    watched = Noise(pack._ground.session)
    found = judged_together(pack, seats.values())
    noise = watched.stop()
    after = pack.state(bystander)["trial"]["lanes"][0]["adapter"]
    assert all(torch.equal(before[one], after[one]) for one in before)
    for slot, state in weights.items():
        left = pack._slots[slot].task.adapter.state()
        assert all(torch.equal(left[one].nan_to_num(), state[one].nan_to_num()) for one in state)
    assert not pack._routing.shares(pack._ground.session.base.unet)
    assert pack.step(frozenset(seats.values())).losses.keys() == {bystander}
    assert all(
        layer.training for part in pack._slots[bystander].task.adapter.layers().values() for layer in part.values()
    )
    pack.close()
    starts = {}
    for seed, name in enumerate(IMAGES):
        given = context(IMAGES[name], seed, tmp_path, shared)
        task = ImageTask(images, session_for(images, given), given)
        watched = Noise(task.session)
        same(found[seats[name]], judged_alone(name, images, task, given), name)
        starts[name] = watched.stop()
        if name != "black":  # which has a grid, and nothing to compare in it
            ours, theirs = (
                np.asarray(Image.open(folder / str(seed) / "images" / "epoch_001.png"), np.int16)
                for folder in (together, tmp_path)
            )
            assert np.abs(ours - theirs).max() <= 2
        if isinstance(found[seats[name]], Report):
            files = [load_file(folder / str(seed) / "lora" / "lora.safetensors") for folder in (together, tmp_path)]
            assert all(torch.equal(files[0][one], files[1][one]) for one in files[1])
    in_order = [row for name in IMAGES if name != "pure noise" for row in starts[name]] + starts["pure noise"]
    assert len(noise) == len(in_order) == 2 * len(IMAGES)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(noise, in_order, strict=True))
    assert found[seats["black"]].cause is Cause.BLACK_IMAGES
    assert found[seats["too large"]].cause is Cause.GRADIENT_EXPLOSION
    assert sum(isinstance(one, Report) for one in found.values()) == len(IMAGES) - 2


def same(ours, theirs, name):
    """Asserts that a report, or a failure, is another one's."""
    assert type(ours) is type(theirs), (name, ours, theirs)
    if isinstance(theirs, TrialFailure):
        assert (ours.cause, ours.message) == (theirs.cause, theirs.message)
    else:
        assert (ours.budget, ours.final, ours.images.keys()) == (theirs.budget, theirs.final, theirs.images.keys())
    assert list(ours.metrics) == list(theirs.metrics)
    for metric in theirs.metrics.keys() - set(MEASURED_BY_CLOCK):
        assert ours.metrics[metric] == pytest.approx(theirs.metrics[metric], rel=1e-4, abs=1e-6), (name, metric)


def test_the_adapters_of_that_test_do_something(images, tmp_path):
    """Or it would compare the base with itself."""
    shared, losses = {}, {}
    for seed, name in enumerate(("lora", "as many", "dora", "texts", "average")):
        given = context(IMAGES[name], seed, tmp_path, shared)
        task = ImageTask(images, session_for(images, given), given)
        try:
            as_trained(name, task)
            losses[name] = task.validate()["val_loss"]
            with task.engine.lanes[0].judged():
                losses[f"{name}, judged"] = task.validate()["val_loss"]
        finally:
            task.close()
    base = session_for(images, given).validation_loss()
    assert all(abs(loss / base - 1) > 1e-3 for loss in losses.values())
    assert abs(losses["average"] / losses["average, judged"] - 1) > 1e-3
    assert losses["lora"] == losses["lora, judged"]


def test_text_adapters_judged_together_are_what_they_are_alone(texts, tmp_path):
    shared, together = {}, tmp_path / "together"
    together.mkdir()
    pack = texts.pack(context(TEXT, 99, tmp_path, shared))
    seats = {name: pack.join(context(TEXTS[name], seed, together, shared)) for seed, name in enumerate(TEXTS)}
    for name, slot in seats.items():
        as_trained(name, pack._slots[slot].task)
    found = judged_together(pack, seats.values())
    pack.close()
    said = set()
    for seed, name in enumerate(TEXTS):
        given = context(TEXTS[name], seed, tmp_path, shared)
        task = TextTask(texts, text_session_for(texts, given, given.params), given)
        same(found[seats[name]], judged_alone(name, texts, task, given), name)
        if name != "broken":
            ours, theirs = (folder / str(seed) / "samples.json" for folder in (together, tmp_path))
            assert json.loads(ours.read_text()) == json.loads(theirs.read_text())
            said.add(ours.read_text())
    assert len(said) > 1
    assert found[seats["broken"]].cause is Cause.NAN_LOSS


@pytest.mark.parametrize(
    ("rows", "device", "expected"),
    [(1, "cpu", 8), (8, "cpu", 8), (20, "cpu", 20), (99, "cpu", 32), (2, "cuda", 8), (99, "cuda", 99)],
)
def test_as_many_images_are_drawn_at_once_as_memory_and_device_are_known_for(rows, device, expected):
    assert images_at_once(rows, torch.device(device)) == expected


def test_what_is_judged_together_is_charged_to_those_it_is_for(images, tmp_path):
    shared = {}
    pack = images.pack(context(IMAGE, 0, tmp_path, shared))
    judged = [pack.join(context(IMAGE, seed, tmp_path, shared)) for seed in (1, 2)]
    resting = pack.join(context(IMAGE, 3, tmp_path, shared))
    pack.step(frozenset({resting}))
    before = {slot: pack._meter.of(slot) for slot in (*judged, resting)}
    pack._meter.begin()
    judged_together(pack, judged)
    spent = {slot: pack._meter.of(slot) - seconds for slot, seconds in before.items()}
    pack.close()
    assert spent[resting] == 0 and min(spent[slot] for slot in judged) > 0
