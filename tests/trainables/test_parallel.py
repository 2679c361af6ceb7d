"""One trial on two processes (gloo): the same loss as one process at the same global batch, and the same ends."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainables.lora.text import small_model
from trainables import demo_character, parallel
from trainables.diffusion_lora import DiffusionLora, ImageEvaluation
from trainables.llm_lora import LlmLora
from trainables.lora.text.settings import TextSettings
from trainables.parallel import DataParallel
from trainables.protocol import Cause, TrialContext, TrialFailure

pytestmark = pytest.mark.alone

PARAMS = {
    "network_dim": 4,
    "network_alpha": 2.5,
    "learning_rate": 3e-3,
    "text_encoder_lr": 5e-4,
    "max_train_epochs": 2,
    "train_batch_size": 3,
}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_LORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("character")
        demo_character.write_dataset(folder, count=12)
        yield DiffusionLora("tiny-sd", str(folder), evaluation=ImageEvaluation(n_images=2, steps=2))


@pytest.fixture(scope="module", autouse=True)
def group():
    yield
    if parallel._group is not None:
        parallel._group.kill()


@pytest.fixture(scope="module")
def shared():
    return {}


def trained(trainer, folder: Path, shared, params=None, **changes):
    folder.mkdir(exist_ok=True)
    context = TrialContext(PARAMS | (params or {}), folder, seed=3, shared=shared, threads=2, **changes)
    return list(trainer.run(context))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"train_batch_size": 1},  # one of the two has nothing to do
        {"optimizer_type": "Adafactor", "ema_decay": 0.9, "use_dora": True, "conv_dim": 2},
    ],
    ids=["plain", "accumulated", "one by one", "other options"],
)
def test_two_processes_train_as_one_does(trainer, tmp_path, shared, changes):
    alone = trained(trainer, tmp_path / "alone", shared, changes)
    together = trained(DataParallel(trainer, 2), tmp_path / "together", shared, changes)
    assert [report.budget for report in together] == [1, 2]
    for one, two in zip(alone, together, strict=True):
        for name in ("train_loss", "val_loss"):
            assert two.metrics[name] == pytest.approx(one.metrics[name], rel=1e-4)
    first, second = (load_file(tmp_path / name / "lora" / "lora.safetensors") for name in ("alone", "together"))
    assert list(first) == list(second)
    for name, value in first.items():
        torch.testing.assert_close(second[name].float(), value.float(), rtol=0.05, atol=2e-3, msg=name)


def test_batches_smaller_than_the_group_leave_the_noise_of_later_ones_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    images = tmp_path / "images"
    demo_character.write_dataset(images, count=12)
    for index, path in enumerate(sorted(images.glob("*.png"))):  # two shapes, so that batches of one come in between
        with Image.open(path) as image:
            image.resize((96, 64) if index % 2 else (64, 64)).save(path)
    settings = {"resolution": 64, "enable_bucket": True, "bucket_reso_steps": 32, "min_bucket_reso": 32}
    bucketed = DiffusionLora("tiny-sd", str(images), settings, evaluation=ImageEvaluation(n_images=2, steps=2))
    params = {"train_batch_size": 2, "max_train_epochs": 1}
    (alone,) = trained(bucketed, tmp_path / "alone", {}, params)
    (together,) = trained(DataParallel(bucketed, 2), tmp_path / "together", {}, params)
    assert together.metrics["train_loss"] == pytest.approx(alone.metrics["train_loss"], rel=1e-4)


def test_a_trial_restored_on_two_processes_goes_on_as_if_never_stopped(trainer, tmp_path, shared):
    through = trained(DataParallel(trainer, 2), tmp_path / "through", shared)
    folder, saved = tmp_path / "stopped", tmp_path / "saved"
    folder.mkdir()
    saved.mkdir()
    running = DataParallel(trainer, 2).run(TrialContext(PARAMS, folder, seed=3, shared=shared, threads=2))
    next(running).save(saved)
    running.close()
    (last,) = trained(DataParallel(trainer, 2), tmp_path / "restored", shared, restore=saved)
    assert dict(last.metrics) == pytest.approx(dict(through[-1].metrics), rel=1e-4)


def test_the_processes_serve_one_trial_after_another_also_after_one_that_failed(trainer, tmp_path, shared):
    trained(DataParallel(trainer, 2), tmp_path / "first", shared, {"max_train_epochs": 1})
    before = parallel._group
    with pytest.raises(TrialFailure) as caught:
        trained(DataParallel(trainer, 2), tmp_path / "wild", shared, {"learning_rate": 1e30, "max_grad_norm": 0})
    assert caught.value.cause in (Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION)
    trained(DataParallel(trainer, 2), tmp_path / "second", shared, {"max_train_epochs": 1})
    assert parallel._group is before


def test_a_lost_process_is_the_infrastructures_fault_and_the_next_trial_has_a_new_group(trainer, tmp_path, shared):
    (tmp_path / "lost").mkdir()
    context = TrialContext(PARAMS, tmp_path / "lost", seed=3, shared=shared, threads=2)
    running = DataParallel(trainer, 2).run(context)
    next(running)
    parallel._group._members[0].kill()
    with pytest.raises(TrialFailure) as caught:
        list(running)
    assert caught.value.cause is Cause.INFRASTRUCTURE
    assert trained(DataParallel(trainer, 2), tmp_path / "next", shared, {"max_train_epochs": 1})[-1].final


def test_a_trial_past_its_time_ends_on_all_of_them(trainer, tmp_path, shared):
    limited = DiffusionLora(trainer.base, trainer.dataset, evaluation=trainer.evaluation, trial_timeout_seconds=1e-3)
    with pytest.raises(TrialFailure) as caught:
        trained(DataParallel(limited, 2), tmp_path / "slow", shared)
    assert caught.value.cause is Cause.TRIAL_TIMEOUT
    assert not any(member.is_alive() for member in parallel._group._members)
    assert trained(DataParallel(trainer, 2), tmp_path / "next", shared, {"max_train_epochs": 1})[-1].final


def test_two_processes_train_a_language_model_as_one_does(tmp_path):
    folder = small_model.write_model(tmp_path / "model")
    data = small_model.write_data(tmp_path / "questions.jsonl")
    text = LlmLora(str(folder), str(data), TextSettings(max_length=64), report_every=3)
    params = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 1e-2, "batch_size": 3, "max_steps": 6}
    losses = {}
    for name, chosen in (("alone", text), ("together", DataParallel(text, 2))):
        (tmp_path / name).mkdir()
        reports = list(chosen.run(TrialContext(params, tmp_path / name, seed=3, threads=2)))
        losses[name] = [(report.metrics["train_loss"], report.metrics["val_loss"]) for report in reports]
    for together, alone in zip(losses["together"], losses["alone"], strict=True):
        assert together == pytest.approx(alone, rel=1e-4)
