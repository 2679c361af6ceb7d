"""Image and text trials in a pack: the same batches, noise and timesteps to the bit, the same learning and files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.trainables.lora.small_ground import apart
from tests.trainables.lora.text import small_model
from trainables import demo_character
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.llm_lora import MEASURED_BY_CLOCK, LlmLora
from trainables.lora.image_session import session_for
from trainables.lora.image_task import ImageTask
from trainables.lora.text.ground import mixing_layer
from trainables.lora.text.settings import TextSettings
from trainables.lora.trial import Trial
from trainables.pack_host import PackHost
from trainables.protocol import TrialContext
from tune_lora.errors import InputErrors

IMAGE = {
    "network_dim": 4, "network_alpha": 2.5, "learning_rate": 3e-3, "max_train_epochs": 1, "min_snr_gamma": 5.0,
    "train_batch_size": 1, "max_grad_norm": 0.8,
}  # fmt: skip
IMAGES = [
    IMAGE | {"text_encoder_lr": 5e-4, "network_dim": 6},
    IMAGE | {"text_encoder_lr": 1e-3, "network_dropout": 0.2, "network_targets": "attention"},
    IMAGE | {"gradient_accumulation_steps": 2, "conv_dim": 2, "noise_offset": 0.1},
    IMAGE | {"train_batch_size": 2, "min_snr_gamma": 0.0},
]
TEXT = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 1e-2, "batch_size": 1, "max_steps": 6}
TEXTS = [
    TEXT,
    TEXT | {"batch_size": 2, "lora_rank": 4},
    TEXT | {"lora_targets": "attention", "lora_dropout": 0.1, "ema_decay": 0.9},
    TEXT | {"max_steps": 4, "optimizer_type": "Adafactor"},
]


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> DiffusionLora:
    folder = tmp_path_factory.mktemp("character")
    demo_character.write_dataset(folder, count=10)
    return DiffusionLora("tiny-sd", str(folder), evaluation=ImageEvaluation(n_images=2, steps=2))


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> LlmLora:
    folder = small_model.write_model(tmp_path_factory.mktemp("model") / "small-qwen2")
    data = small_model.write_data(tmp_path_factory.mktemp("data") / "questions.jsonl")
    return LlmLora(str(folder), str(data), TextSettings(max_length=64), report_every=3)


@pytest.fixture(scope="module")
def shared():
    return {}


def context(params, seed, folder, shared) -> TrialContext:
    mine = folder / str(seed)
    mine.mkdir(exist_ok=True)
    return TrialContext(params, mine, seed=seed, shared=shared)


class Shown:
    """What a denoiser was shown: noisy latents and timesteps."""

    def __init__(self, unet):
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._hook = unet.register_forward_pre_hook(lambda _, given: self.calls.append((given[0], given[1])))

    def rows(self, start, stop):
        return [(noisy[start:stop], timesteps[start:stop]) for noisy, timesteps in self.calls]

    def close(self):
        self._hook.remove()


def image_alone(trainer, params, seed, micros, folder, shared):
    """Adapter before and after, and what the denoiser was shown, of a trial by itself."""
    given = context(params, seed, folder, shared)
    session = session_for(trainer, given)
    task, shown = ImageTask(trainer, session, given), Shown(session.base.unet)
    try:
        trial, start = Trial(task, task.engine, given, trainer.course(params)), task.adapter.state()
        for _ in range(micros):
            micro = trial.next()
            trial.learnt(task.engine.accumulate([task.loss(micro.batch)], [micro.share], [micro.part])[0])
        return start, task.adapter.state(), shown.calls
    finally:
        shown.close()
        task.close()


def test_image_trials_see_and_learn_what_they_would_alone(images, tmp_path, shared):
    micros = 4
    pack = images.pack(context(IMAGE, 0, tmp_path, shared))
    shown = Shown(pack._ground.session.base.unet)
    seats = [pack.join(context(params, seed, tmp_path, shared)) for seed, params in enumerate(IMAGES)]
    for _ in range(micros):
        assert not pack.step().failures
    shown.close()
    order = sorted(pack._slots.values(), key=lambda slot: (slot.likeness, slot.number))
    sizes = {slot.number: int(slot.task.params["train_batch_size"]) for slot in order}
    found, start = {}, 0
    for slot in order:
        found[slot.number] = shown.rows(start, start + sizes[slot.number])
        start += sizes[slot.number]
    states = {slot: pack._slots[slot].task.adapter.state() for slot in seats}
    pack.close()
    for seed, (slot, params) in enumerate(zip(seats, IMAGES, strict=True)):
        before, after, alone = image_alone(images, params, seed, micros, tmp_path, shared)
        for ours, theirs in zip(found[slot], alone, strict=True):
            assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert apart(states[slot], after, before) < 1e-4


@pytest.mark.slow
def test_a_whole_image_trial_in_a_pack_reports_and_exports_what_it_would_alone(images, tmp_path, shared):
    pack = images.pack(context(IMAGE, 0, tmp_path, shared))
    together = tmp_path / "together"
    together.mkdir()
    seats = [pack.join(context(params, seed, together, shared)) for seed, params in enumerate(IMAGES)]
    last = {}
    while len(last) < len(seats):
        stepped = pack.step()
        assert not stepped.failures
        last |= {slot: report for slot, report in stepped.reports.items() if report.final}
    pack.close()
    for seed, (slot, params) in enumerate(zip(seats, IMAGES, strict=True)):
        given = context(params, seed, tmp_path, shared)
        (alone,) = images.run(given)
        assert last[slot].metrics == pytest.approx(dict(alone.metrics), rel=1e-3, abs=1e-4)
        ours, theirs = (load_file(folder / str(seed) / "lora" / "lora.safetensors") for folder in (together, tmp_path))
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)  # the file is in half precision


def test_text_trials_report_what_they_would_alone(texts, tmp_path, shared):
    pack = texts.pack(context(TEXT, 0, tmp_path, shared))
    together = tmp_path / "together"
    together.mkdir()
    seats = [pack.join(context(params, seed, together, shared)) for seed, params in enumerate(TEXTS)]
    reports = {slot: [] for slot in seats}
    while any(not found or not found[-1].final for found in reports.values()):
        stepped = pack.step()
        assert not stepped.failures
        for slot, report in stepped.reports.items():
            reports[slot].append(report)
    pack.close()
    for seed, (slot, params) in enumerate(zip(seats, TEXTS, strict=True)):
        alone = list(texts.run(context(params, seed, tmp_path, shared)))
        assert [report.budget for report in reports[slot]] == [report.budget for report in alone]
        for ours, theirs in zip(reports[slot], alone, strict=True):
            assert ours.metrics.keys() == theirs.metrics.keys()
            for name in theirs.metrics.keys() - set(MEASURED_BY_CLOCK):
                assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-4)


def test_activations_computed_twice_give_the_same_gradients(texts, tmp_path, shared):
    params, states = TEXT | {"gradient_checkpointing": True}, []
    for recomputes in (False, True):
        given = [dict(params, gradient_checkpointing=recomputes, lora_rank=rank) for rank in (8, 4)]
        pack = texts.pack(context(given[0], 0, tmp_path, shared))
        seats = [pack.join(context(one, seed, tmp_path, shared)) for seed, one in enumerate(given)]
        start = [pack._slots[slot].task.adapter.state() for slot in seats]
        for _ in range(4):
            pack.step()
        states.append([pack._slots[slot].task.adapter.state() for slot in seats])
        pack.close()
    for plain, twice, before in zip(*states, start, strict=True):
        assert apart(twice, plain, before) < 1e-4
    model = pack._ground.session.base.model
    assert not model.training and not model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "bf16"}, "precision: got bf16; must be fp32, that of the trials"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: got true; must be false, that of the trials"),
        ({"network_dim": 0}, "network_dim"),
    ],
)
def test_an_image_trial_that_cannot_share_is_told_why_in_one_line(images, tmp_path, shared, changes, told):
    pack = images.pack(context(IMAGE, 0, tmp_path, shared))
    with pytest.raises(InputErrors) as caught:
        pack.join(context(IMAGE | changes, 1, tmp_path, shared))
    (line,) = caught.value.mistakes
    assert told in line
    assert not pack.slots


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "bf16"}, "precision: got bf16; must be fp32"),
        ({"quantization": "nf4"}, "quantization: got nf4; must be none"),
    ],
)
def test_a_text_trial_that_cannot_share_is_told_why_in_one_line(texts, tmp_path, shared, changes, told):
    pack = texts.pack(context(TEXT, 0, tmp_path, shared))
    assert any(told in line for line in pack.differences(context(TEXT | changes, 1, tmp_path, shared)))
    assert not pack.differences(context(TEXT | {"lora_rank": 2}, 1, tmp_path, shared))


def test_a_layer_that_is_not_called_with_rows_is_found():
    class Routed(torch.nn.Module):
        device = torch.device("cpu")

        def __init__(self, flat):
            super().__init__()
            self.embed, self.expert, self.flat = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 4), flat

        def forward(self, input_ids, use_cache):
            x = self.embed(input_ids)
            return self.expert(x.flatten(0, 1) if self.flat else x)

    def layers(model):
        return [("expert", model.expert)]

    assert mixing_layer(Routed(flat=True), layers) == "expert"
    assert mixing_layer(Routed(flat=False), layers) is None


def hosted(host, given, folder):
    """Reports of a trial at a host, each with its checkpoint written; after the first it moves to another seat."""
    token, found = host.join(given), []
    while not found or not found[-1].report.final:
        found.append(host.next(token, 120))
        assert found[-1].report is not None, found[-1]
        saved = folder / f"saved-{given.seed}-{len(found)}"
        saved.mkdir()
        host.save(token, saved)
        if len(found) == 1:
            host.leave(token)
            token = host.join(replace(given, restore=saved))
    return [said.report for said in found]


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_trials_at_a_host_that_move_on_the_way_learn_what_they_would_alone(kind, images, texts, tmp_path, shared):
    trainer, params = (images, IMAGE | {"max_train_epochs": 2}) if kind == "images" else (texts, TEXT)
    choices = [params, params | {"optimizer_type": "Lion", "learning_rate": 1e-3}]
    (apart_folder := tmp_path / "alone").mkdir()
    alone = [list(trainer.run(context(one, seed, apart_folder, shared))) for seed, one in enumerate(choices, start=1)]
    host = PackHost(trainer, seats=2)
    try:
        contexts = [context(one, seed, tmp_path, {}) for seed, one in enumerate(choices, start=1)]
        together = [hosted(host, given, tmp_path) for given in contexts]
    finally:
        host.close()
    for ours, theirs in zip(together, alone, strict=True):
        assert [report.budget for report in ours] == [report.budget for report in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.metrics["train_loss"] == pytest.approx(other.metrics["train_loss"], rel=1e-4)
            assert one.metrics["val_loss"] == pytest.approx(other.metrics["val_loss"], rel=1e-4)
