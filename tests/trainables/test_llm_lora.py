"""The text trainer really trains: contract, learning, metrics, causes, and what it leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.contracts.trainer import TrainerContract
from tests.trainables.lora.text import small_model
from trainables import demo_logbook
from trainables.llm_lora import MEASURED_BY_CLOCK, METRICS, LlmLora
from trainables.lora.text.settings import TextSettings
from trainables.protocol import Cause, TrialContext, TrialFailure
from tune_lora.errors import InputError

PARAMS = {"lora_rank": 8, "lora_alpha": 16, "learning_rate": 1e-2, "batch_size": 2, "max_steps": 12}
SETTINGS = TextSettings(max_length=64)


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_model.write_model(tmp_path_factory.mktemp("model") / "small-qwen2")


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return small_model.write_data(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.fixture(scope="module")
def shared():
    return {}


@pytest.fixture
def trainer(folder: Path, questions: Path) -> LlmLora:
    return LlmLora(str(folder), str(questions), SETTINGS, report_every=5)


def context(folder: Path, shared: dict, **changes) -> TrialContext:
    params = PARAMS | changes.pop("params", {})
    return TrialContext(params=params, folder=folder, seed=3, shared=shared, **changes)


class TestLlmLora(TrainerContract):
    tolerance = 1e-4
    by_clock = frozenset(MEASURED_BY_CLOCK)

    @pytest.fixture
    def trainer(self, folder, questions):
        return LlmLora(str(folder), str(questions), SETTINGS, report_every=4)

    @pytest.fixture
    def params(self):
        return PARAMS | {"lora_dropout": 0.1, "ema_decay": 0.9, "use_dora": True}


def test_reports_come_regularly_where_somebody_decides_and_at_the_end(trainer, tmp_path, shared) -> None:
    reports = list(trainer.run(context(tmp_path, shared, decide_at=frozenset({7}))))
    assert [report.budget for report in reports] == [5, 7, 10, 12]
    assert ["tokens_per_second" in report.metrics for report in reports] == [False, True, False, True]


def test_every_report_holds_what_a_study_may_be_about_and_the_last_all_of_it(trainer, tmp_path, shared) -> None:
    reports = list(trainer.run(context(tmp_path, shared)))
    for report in reports:
        assert set(report.metrics) | {"tokens_per_second"} == set(METRICS)
        assert all(value > 0 for name, value in report.metrics.items() if name != "learning_rate")
    assert set(reports[-1].metrics) == set(METRICS)


def test_what_costs_are_told_are_what_they_are(trainer, tmp_path, shared) -> None:
    last = list(trainer.run(context(tmp_path, shared)))[-1].metrics
    files = tmp_path / "lora" / "adapter_model.safetensors"
    assert last["adapter_mib"] == pytest.approx(files.stat().st_size / 2**20, rel=0.1)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trainer.base), files.parent)
    trained = sum(p.numel() for name, p in loaded.named_parameters() if "lora_" in name)
    assert last["trainable_parameters"] == trained
    assert last["perplexity"] == pytest.approx(2.718281828 ** last["val_loss"], rel=1e-4)


def test_the_adapter_learns(trainer, tmp_path, shared) -> None:
    base = trainer.prepare(context(tmp_path, shared))["baseline"]
    last = list(trainer.run(context(tmp_path, shared, params={"max_steps": 60})))[-1].metrics
    assert last["val_loss"] < 0.7 * base["val_loss"] and last["train_loss"] < base["val_loss"]


def test_the_base_is_what_it_was_after_a_trial(trainer, tmp_path, shared) -> None:
    before = trainer.prepare(context(tmp_path, shared))["baseline"]
    list(trainer.run(context(tmp_path, shared, params={"gradient_checkpointing": True})))
    assert trainer.prepare(context(tmp_path, shared))["baseline"] == before
    model = shared["llm_lora"][1].base.model
    assert not model.training and not any("lora_" in name for name, _ in model.named_parameters())


def test_the_batch_size_changes_memory_and_speed_but_not_what_is_learnt(trainer, tmp_path, shared) -> None:
    losses = [
        list(trainer.run(context(tmp_path, shared, params={"batch_size": size})))[-1].metrics["val_loss"]
        for size in (1, 2, 4)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)


def test_an_epoch_is_all_rows_once(trainer, folder, questions) -> None:
    without = {name: value for name, value in PARAMS.items() if name != "max_steps"}
    assert trainer.horizon(without) == 22  # 86 examples, 4 a step
    assert trainer.horizon(without | {"epochs": 3, "effective_batch_size": 8, "batch_size": 1}) == 33
    assert trainer.horizon(without | {"gradient_accumulation_steps": 1}) == 43
    packed = LlmLora(str(folder), str(questions), TextSettings(max_length=64, packing=True))
    assert 1 < packed.horizon(without) < 22


def test_packed_training_learns_as_well_in_fewer_steps(folder, questions, tmp_path, shared) -> None:
    settings = TextSettings(max_length=120, packing=True)
    trainer = LlmLora(str(folder), str(questions), settings)
    prepared = trainer.prepare(context(tmp_path, shared))
    assert any(note.startswith("packed into") for note in prepared["calibration"]["data"])
    last = list(trainer.run(context(tmp_path, shared, params={"batch_size": 1, "max_steps": 20})))[-1].metrics
    assert last["val_loss"] < 0.75 * prepared["baseline"]["val_loss"]


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"precision": "fp16"}, {"use_rslora": True},
                                     {"loraplus_lr_ratio": 8.0, "learning_rate": 2e-3}, {"lora_targets": "attention"},
                                     {"gradient_checkpointing": True}, {"lora_rank.model.layers.0": 2}],
                         ids=lambda changes: next(iter(changes)))  # fmt: skip
def test_every_option_trains(trainer, tmp_path, shared, changes) -> None:
    base = trainer.prepare(context(tmp_path, shared, params=changes))["baseline"]
    last = list(trainer.run(context(tmp_path, shared, params=changes)))[-1].metrics
    assert last["val_loss"] < base["val_loss"]


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_is_trained_on(tmp_path, questions, kind) -> None:
    wide = small_model.write_model(tmp_path / "wide", **small_model.WIDE)
    trainer = LlmLora(str(wide), str(questions), SETTINGS, quantization=kind)
    mine: dict = {}
    base = trainer.prepare(context(tmp_path, mine))["baseline"]
    last = list(trainer.run(context(tmp_path, mine)))[-1].metrics
    assert last["val_loss"] < base["val_loss"]


def test_a_trial_leaves_its_adapter_what_it_says_and_where_it_comes_from(trainer, tmp_path, shared, folder) -> None:
    list(trainer.run(context(tmp_path, shared)))
    told = json.loads((tmp_path / "lora" / "tune_lora.json").read_text())
    assert told["params"] == PARAMS and told["dataset"] == "questions.jsonl" and told["metrics"]["val_loss"] > 0
    assert told["base"] == folder.name and len(told["base_sha256"]) == 64
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert len(samples) == 4 and all("What is a" in sample["prompt"] for sample in samples)
    assert not (tmp_path / "merged").exists()


def test_the_merged_model_has_the_validation_loss_of_the_trial(folder, questions, tmp_path, shared) -> None:
    trainer = LlmLora(str(folder), str(questions), SETTINGS, merged=True)
    last = list(trainer.run(context(tmp_path, shared)))[-1].metrics
    merged = LlmLora(str(tmp_path / "merged"), str(questions), SETTINGS)
    assert merged.prepare(context(tmp_path, {}))["baseline"]["val_loss"] == pytest.approx(last["val_loss"], rel=1e-4)


def test_two_processes_learn_what_one_does(trainer, tmp_path, shared) -> None:
    from trainables.parallel import DataParallel

    params = {"batch_size": 4, "max_steps": 6}
    alone = list(trainer.run(context(tmp_path, shared, params=params)))[-1].metrics
    together = list(DataParallel(trainer, 2).run(context(tmp_path, {}, params=params)))[-1].metrics
    for name in ("val_loss", "train_loss"):
        assert together[name] == pytest.approx(alone[name], rel=1e-4)


# --- causes ----------------------------------------------------------------------------------------------------------


def test_nan_in_the_weights_ends_the_trial_with_its_cause(trainer, tmp_path, shared) -> None:
    running = trainer.run(context(tmp_path, shared))
    next(running)
    model = shared["llm_lora"][1].base.model
    broken = next(parameter for name, parameter in model.named_parameters() if "lora_A" in name)
    with torch.no_grad():
        broken.fill_(float("nan"))
    with pytest.raises(TrialFailure) as caught:
        next(running)
    assert caught.value.cause is Cause.NAN_LOSS


def test_an_exploding_configuration_ends_with_a_cause_and_leaves_the_base_clean(trainer, tmp_path, shared) -> None:
    wild = {"learning_rate": 1e30, "optimizer_type": "Lion", "max_steps": 40}
    with pytest.raises(TrialFailure) as caught:
        list(trainer.run(context(tmp_path, shared, params=wild)))
    assert caught.value.cause in (Cause.NAN_LOSS, Cause.GRADIENT_EXPLOSION)
    model = shared["llm_lora"][1].base.model
    assert not model.training and not any("lora_" in name for name, _ in model.named_parameters())


def test_a_trial_past_its_time_ends_with_a_cause(folder, questions, tmp_path, shared) -> None:
    trainer = LlmLora(str(folder), str(questions), SETTINGS, trial_timeout_seconds=1e-6)
    with pytest.raises(TrialFailure) as caught:
        list(trainer.run(context(tmp_path, shared)))
    assert caught.value.cause is Cause.TRIAL_TIMEOUT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_rank": 0}, "lora_rank: got 0; must be a whole number from 1"),
        ({"lora_alpha": "16"}, "lora_alpha: got '16'; must be a number"),
        ({"lora_dropout": 1.0}, "lora_dropout: got 1.0"),
        ({"lora_targets": "al"}, "lora_targets: got 'al'; did you mean 'all'?"),
        ({"learning_rate": "1e-4"}, "learning_rate: got '1e-4'; must be a number"),
        ({"batch_size": 3}, "effective_batch_size: got 4 with batch_size 3; must be a multiple of it"),
        ({"max_steps": 0}, "max_steps: got 0"),
        (
            {"effective_batch_size": 6, "gradient_accumulation_steps": 5},
            "effective_batch_size: got 6 beside gradient_accumulation_steps 5, which wins and makes 10 with "
            "batch_size 2; must be left out, or gradient_accumulation_steps",
        ),
        ({"quantization": "nf8"}, "quantization: got 'nf8'"),
        ({"quantization": "nf4", "use_dora": True}, "use_dora: got true with quantization nf4; must be false"),
        ({"optimizer_type": "Adam"}, "did you mean 'AdamW'"),
        ({"lora_rank.model.layers.0": -1}, "lora_rank.model.layers.0: got -1"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_before_anything_is_loaded(changes, message) -> None:
    (mistake,) = LlmLora("nowhere", "nothing").check(PARAMS | changes)
    assert message in mistake


def test_a_length_said_twice_is_a_mistake_unless_both_mean_the_same() -> None:
    trainer = LlmLora("nowhere", "nothing")
    twice = {"effective_batch_size": 10, "gradient_accumulation_steps": 5}
    assert trainer.check(PARAMS | twice) == []
    (mistake,) = trainer.check(PARAMS | {"epochs": 2})
    assert mistake == "epochs: got 2 beside max_steps 12, which wins; must be left out, or max_steps"


def test_rows_longer_than_the_model_has_positions_are_refused(tmp_path, questions) -> None:
    model = small_model.write_model(tmp_path / "model", max_position_embeddings=48)
    with pytest.raises(InputError) as caught:
        LlmLora(str(model), str(questions), TextSettings(max_length=64)).prepare(context(tmp_path, {}))
    assert str(caught.value) == "max_length: got 64; must be at most 48, the positions that the base model has"
    LlmLora(str(model), str(questions), TextSettings(max_length=48)).prepare(context(tmp_path, {}))


def test_packing_with_a_model_that_cannot_is_refused(tmp_path, questions, monkeypatch) -> None:
    model = small_model.write_model(tmp_path / "model")
    monkeypatch.setattr("trainables.lora.text.session.packs_cleanly", lambda *_: False)
    trainer = LlmLora(str(model), str(questions), TextSettings(max_length=64, packing=True))
    with pytest.raises(InputError, match="Qwen2ForCausalLM lets packed examples see each other; must be false"):
        trainer.prepare(context(tmp_path, {}))


# --- the real thing --------------------------------------------------------------------------------------------------


def test_smollm2_learns_a_little_and_still_knows_the_capital_of_france(smollm2, tmp_path) -> None:
    data = demo_logbook.write_dataset(tmp_path / "logbook.jsonl", count=28)
    trainer = LlmLora(
        smollm2, str(data), TextSettings(max_length=128, held_out_share=0.15), precision="bf16", samples=0
    )
    mine: dict = {}
    params = {"max_steps": 6, "learning_rate": 2e-4, "lr_scheduler": "constant", "lora_rank": 8, "lora_alpha": 16}
    base = trainer.prepare(context(tmp_path, mine))["baseline"]
    last = list(trainer.run(context(tmp_path, mine, params=params)))[-1].metrics
    assert last["val_loss"] < base["val_loss"] - 0.3
    folder = tmp_path / "lora"
    loaded = mine["llm_lora"][1].base.model
    tokenizer: AutoTokenizer = mine["llm_lora"][1].base.tokenizer
    with_adapter = PeftModel.from_pretrained(loaded, folder)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    said = with_adapter.generate(**ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert "Paris" in tokenizer.decode(said[0])
