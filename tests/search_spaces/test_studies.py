"""Every study file that is shipped is valid, and so is every space."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from search_spaces.reading import shipped
from search_spaces.space import Space
from trainables import demo_character
from trainables.lora.text import sources
from tune_lora import build, spec
from tune_lora.classifier_spec import DEMO_SHAPES
from tune_lora.transfer_spec import TransferSpec

FOLDER = Path(build.__file__).parents[1] / "search_spaces"
STUDIES = sorted((FOLDER / "studies").glob("*.yaml"))
SPACES = sorted(FOLDER.glob("*.yaml"))
NEED_A_CHECKPOINT = {"sd15_v2_1"}
NEEDED = {
    "lora_": {"network_dim", "network_alpha", "learning_rate", "max_train_epochs"},
    "llm_": {"lora_rank", "lora_alpha", "learning_rate", "epochs"},
    "classifier_": {"optimizer.lr"},
    "transfer_": {"encoder_latent_dim", "encoder_hidden_dims", "lr_pretrain", "weight_decay"},
    "multimodal_": {"lr", "batch_size", "max_epochs", "text_encoder", "latent_dim"},
}
"""What a configuration cannot be without, by how the name of the space begins."""


@pytest.fixture(scope="module")
def character(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("character")
    demo_character.write_dataset(folder, count=12)
    return folder


def test_the_files_are_found() -> None:
    assert {path.stem for path in STUDIES} >= {"character", "demo", "sd15_v2_1", "smollm2"}
    assert {path.stem for path in SPACES} == set(shipped()) >= {"llm_lora", "lora_tiny", "lora_v1", "lora_v2_1"}


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_trains_with_every_preset(path: Path) -> None:
    space = Space.load(path)
    assert space.name == path.stem
    for name in (None, *space.presets):
        chosen = space.preset(name) if name else space
        config = chosen.resolve(chosen.defaults())
        assert chosen.violations(config) == []
        assert config.keys() >= _needed(path.stem)


def _needed(space: str) -> set[str]:
    for begins, needed in NEEDED.items():
        if space.startswith(begins):
            return needed
    raise AssertionError(f"say in NEEDED what a configuration of {space} cannot be without")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_is_valid_with_the_users_files_in_place(
    path: Path, character: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path))
    study = spec.load(path)
    if study.base == sources.SMOLLM2 and importlib.util.find_spec(sources.PACKAGE) is None:
        pytest.skip(f"the package {sources.PACKAGE} is not installed")
    changes: dict[str, object] = {}
    if path.stem in NEED_A_CHECKPOINT:
        changes["base"] = "tiny-sd"
    if study.dataset is not None and study.dataset.path != spec.DEMO_CHARACTER:
        changes["dataset"] = study.dataset.model_copy(update={"path": str(character)})
    if study.data is not None and not Path(study.data.path).exists():
        changes["data"] = study.data.model_copy(update={"path": DEMO_SHAPES, "label": "label"})
    if study.transfer is not None and study.transfer.stage1 and not Path(study.transfer.stage1.path).exists():
        changes["transfer"] = TransferSpec()  # the embedded problem
    ready = build.plan(study.model_copy(update=changes))
    assert ready.space.violations(ready.space.resolve(ready.space.defaults())) == []
    assert (ready.spec.scheduler.grace or 0) <= max(map(ready.trainer.horizon, ready.space.examples()))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_says_how_it_is_run_and_is_written_back_equal(path: Path) -> None:
    assert f"tune-lora run search_spaces/studies/{path.name}" in path.read_text("utf-8")
    study = spec.load(path)
    assert spec.from_mapping(yaml.safe_load(yaml.safe_dump(study.as_mapping())), "again") == study
