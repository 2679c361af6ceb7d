"""Hub names: what is whole in the cache is never asked for again, and every failure is told from the others."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from tests.trainables.lora.text import small_model
from trainables.lora.text.hub import folder_of_hub_model
from tune_lora.errors import InputError

NAME = "somebody/small-model"
NOT_FOUND = "is not in the local cache, and the hub cannot be reached"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub's client, which may not use the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def snapshot(hub: Path) -> Path:
    """The model as the hub's client leaves it in the cache."""
    folder = hub / "models--somebody--small-model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    return small_model.write_model(folder / "snapshots" / ("0" * 40))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of whom the model was asked, in order."""
    real, found = huggingface_hub.snapshot_download, []

    def download(name: str, **options: Any) -> str:
        found.append("cache" if options.get("local_files_only") else "hub")
        return str(real(name, **options))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return found


@pytest.mark.parametrize("weights", [True, False])
def test_what_is_whole_in_the_cache_is_taken_from_it_without_a_question(
    snapshot: Path, asked: list[str], weights: bool
) -> None:
    assert folder_of_hub_model(NAME, weights=weights) == snapshot
    assert asked == ["cache"]


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "a part"])
def test_the_hub_is_asked_for_what_is_not_whole(snapshot: Path, asked: list[str], missing: str) -> None:
    if missing == "a part":
        parts = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    else:
        (snapshot / missing).unlink()
    folder_of_hub_model(NAME)
    assert asked == ["cache", "hub"]


def test_a_tokenizer_needs_no_weights(snapshot: Path, asked: list[str]) -> None:
    (snapshot / "model.safetensors").unlink()
    assert folder_of_hub_model(NAME, weights=False) == snapshot
    assert asked == ["cache"]


def test_a_hub_that_cannot_be_reached(hub: Path, asked: list[str]) -> None:
    with pytest.raises(InputError, match=NOT_FOUND):
        folder_of_hub_model(NAME)
    assert asked == ["cache", "hub"]


def test_a_connection_that_is_lost(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, HfHubHTTPError.__bases__[0]("reading was cut off"))
    with pytest.raises(InputError, match=NOT_FOUND):
        folder_of_hub_model(NAME)


def test_a_full_disk_is_not_an_unreachable_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(InputError) as caught:
        folder_of_hub_model(NAME)
    assert f"cannot be stored in {hub} (No space left on device); must be" in str(caught.value)


def test_what_is_no_name_of_a_hub(hub: Path) -> None:
    with pytest.raises(InputError, match="is no hub name"):
        folder_of_hub_model("some..body/--")


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Downloads that fail so, where the cache has nothing."""

    def download(name: str, *, local_files_only: bool = False, **_: object) -> str:
        raise LocalEntryNotFoundError(name) if local_files_only else error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
