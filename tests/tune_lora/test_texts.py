"""A study of a language model from its file to what its winner writes: searched, trained again, merged, asked."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.trainables.lora.text import small_model
from trainables.llm_lora import LlmLora
from trainables.lora.text import base as bases
from trainables.lora.text.settings import TextSettings
from trainables.protocol import TrialContext
from tune_lora import single, spec, store, study, texts, trainers
from tune_lora.cli import main
from tune_lora.errors import InputError

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model and data."""
    folder = tmp_path_factory.mktemp("text")
    small_model.write_model(folder / "small-qwen2")
    small_model.write_data(folder / "questions.jsonl")
    return folder


@pytest.fixture(scope="module")
def described(place: Path) -> spec.StudySpec:
    given: dict[str, Any] = {
        "name": "fruits", "trainer": "llm_lora", "base": str(place / "small-qwen2"),
        "text": {"path": str(place / "questions.jsonl"), "max_length": 64, "report_every": 4},
        "space": "llm_lora", "fixed": {"max_steps": 12, "lr_warmup_steps": 0},
        "search": {"sampler": "random", "seed": 1}, "scheduler": {"name": "asha", "grace": 4, "eta": 2},
        "budget": {"n_trials": 4}, "tracking": {"wandb": "off"}, "results": str(place / "results"),
    }  # fmt: skip
    return spec.from_mapping(given, "test")


@pytest.fixture(scope="module")
def results(described: spec.StudySpec, ray_session: None) -> Path:
    """The results folder of a study of four trials."""
    study.run(described)
    return described.folder


def test_the_baseline_ran_first_to_its_end_and_every_trial_is_told_in_percent_of_it(results: Path) -> None:
    record = store.load(results)
    first = record.trials[0]
    assert first.provenance == "prior:baseline" and first.state == "complete"
    assert (first.config["lora_rank"], first.config["lora_alpha"], first.config["learning_rate"]) == (16, 32, 2e-4)
    rows = list(csv.DictReader((results / "all_trials.csv").open()))
    assert rows[0]["improvement_percent"] == "0.0"
    kept = store.load_study(results).user_attrs[store.IMPROVEMENT]
    told = {row["number"]: float(row["improvement_percent"]) for row in rows if row["improvement_percent"]}
    assert kept == pytest.approx(told) and len(kept) == record.count("complete")


@pytest.mark.parametrize(
    "fixed",
    [
        pytest.param({"precision": "bf16"}, id="bf16", marks=pytest.mark.slow),  # half a minute, as the other
        pytest.param({"quantization": "int8"}, id="int8"),
    ],
)
def test_the_untrained_base_is_judged_as_the_trials_are(
    described: spec.StudySpec, ray_session: None, tmp_path: Path, fixed: dict[str, str]
) -> None:
    fixed = {"max_steps": 1, "lr_warmup_steps": 0} | fixed
    given = described.as_mapping() | {"name": "held", "fixed": fixed, "results": str(tmp_path)}
    record = study.run(spec.from_mapping(given, "test"), n_trials=1)
    plain, held = (
        trainers.text_trainer(described).prepare(TrialContext(params, tmp_path))["baseline"]["val_loss"]
        for params in ({}, fixed)
    )
    assert record.untrained == pytest.approx(held, rel=1e-6)
    assert held != pytest.approx(plain, rel=1e-6)


def test_the_study_says_what_its_numbers_are(results: Path) -> None:
    record = store.load(results)
    assert record.score_name == "val_loss" and record.untrained is not None
    assert record.best is not None and record.best.value < record.untrained
    page = (results / "report.html").read_text("utf-8")
    assert "than the untrained base" in page and "86 training examples" in page and "10 held-out examples" in page


def test_the_best_is_copied_and_writes(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (results / "best" / "adapter_model.safetensors").is_file()
    with pytest.raises(SystemExit) as end:
        main(["generate", str(results), "--prompt", "What is a red fig?", "--max-tokens", "5"])
    assert not end.value.code
    told = capsys.readouterr().out
    assert told.startswith("What is a red fig?\n-> ")


def test_without_a_prompt_the_studys_own_are_answered(results: Path) -> None:
    written = texts.complete(results, n=3, max_tokens=3)
    assert len(written) == 3 and all("What is a" in one.prompt for one in written)


def test_the_best_is_trained_to_its_end_and_merged(results: Path, place: Path) -> None:
    folder = single.train(results, epochs=1, merged=True, output=place / "final")
    assert json.loads((folder / "lora" / "tune_lora.json").read_text())["params"]["epochs"] == 1
    assert AutoModelForCausalLM.from_pretrained(folder / "merged").config.model_type == "qwen2"
    asked = ["What is a black plum?"]
    from_training = texts.complete(folder, prompts=asked, max_tokens=8)
    shutil.copytree(folder / "lora", place / "elsewhere")  # an adapter alone says of its base no more than the name
    alone = texts.complete(place / "elsewhere", base=str(place / "small-qwen2"), prompts=asked, max_tokens=8)
    assert from_training == alone


def test_an_adapter_that_does_not_say_its_base_needs_one(place: Path, results: Path) -> None:
    silent = place / "silent"
    shutil.copytree(results / "best", silent)
    (silent / "tune_lora.json").unlink()
    with pytest.raises(
        InputError, match="that it was trained on 'small-qwen2', which is not here; give it with --base"
    ):
        texts.complete(silent, prompts=["a"])
    said = json.loads((silent / "adapter_config.json").read_text())
    (silent / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="says of no base what it was trained on; give it with --base"):
        texts.complete(silent, prompts=["a"])
    with pytest.raises(InputError, match="no prompts are known; give some with --prompt"):
        texts.complete(silent)


def test_an_adapter_made_elsewhere_says_its_base_to_peft(place: Path, results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(results / "best", other)
    (other / "tune_lora.json").unlink()
    said = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(
        json.dumps(said | {"base_model_name_or_path": str(place / "small-qwen2")})
    )
    asked = ["What is a black plum?"]
    assert texts.complete(other, prompts=asked, max_tokens=4) == texts.complete(
        other, base=str(place / "small-qwen2"), prompts=asked, max_tokens=4
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[1, 2]", "tune_lora.json: is no JSON object"),
        ("{", "tune_lora.json: is no JSON object"),
        ('{"precision": "bf17"}', "precision: got 'bf17'; did you mean 'bf16'?"),
        ('{"template": ["chat"]}', "template: got"),
    ],
)
def test_a_damaged_provenance_is_one_clear_line(results: Path, tmp_path: Path, written: str, message: str) -> None:
    shutil.copytree(results / "best", tmp_path / "best")
    (tmp_path / "best" / "tune_lora.json").write_text(written)
    with pytest.raises(InputError) as caught:
        texts.complete(tmp_path / "best", prompts=["a"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("held", [{"precision": "bf16"}, {"quantization": "nf4"}], ids=["bf16", "nf4"])
def test_the_base_is_held_as_it_was_in_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[str, str]
) -> None:
    wide = small_model.write_model(tmp_path / "wide", **small_model.WIDE)
    trainer = LlmLora(str(wide), str(place / "questions.jsonl"), TextSettings(max_length=64))
    params = {"lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-3, "max_steps": 1} | held
    (tmp_path / "trial").mkdir()
    list(trainer.run(TrialContext(params, tmp_path / "trial")))
    seen: list[dict[str, Any]] = []
    real = bases.load
    monkeypatch.setattr(bases, "load", lambda base, **options: seen.append(options) or real(base, **options))
    (written,) = texts.complete(tmp_path / "trial", base=str(wide), prompts=["What is a fig?"], max_tokens=4)
    assert seen == [{"precision": "fp32", "quantization": "none"} | held]
    assert written.prompt == "What is a fig?"


def test_cost_and_speed_may_be_objectives(described: spec.StudySpec, ray_session: None) -> None:
    metrics = ["val_loss", "adapter_mib", "peak_memory_gib", {"name": "tokens_per_second", "direction": "maximize"}]
    several = described.as_mapping() | {"name": "several", "objective": {"metrics": metrics}}
    record = study.run(spec.from_mapping(several, "test"), n_trials=1)
    assert [one.name for one in record.objectives][-1] == "tokens_per_second"
    done = [trial for trial in record.trials if trial.state == "complete"]
    assert done and all(len(trial.values) == 4 and min(trial.values) > 0 for trial in done)


def test_whole_models_are_of_language_models_only(tmp_path: Path) -> None:
    study_file = tmp_path / "study.yaml"
    study_file.write_text("name: s\ntrainer: curve\nspace: lora_v1\n")
    (tmp_path / "best_config.yaml").write_text("learning_rate: 0.001\nmax_train_epochs: 2\n")
    with pytest.raises(InputError, match="--merged: the trainer is curve; must be llm_lora"):
        single.train(study_file, config=tmp_path / "best_config.yaml", merged=True)


def test_what_is_text_and_what_is_not(results: Path, place: Path, tmp_path: Path) -> None:
    assert texts.is_text(results) and texts.is_text(results / "best") and texts.is_text(results / "trials" / "0")
    assert not texts.is_text(tmp_path) and not texts.is_text(tmp_path / "lora.safetensors")
