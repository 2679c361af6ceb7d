"""A hub's model on this disk: from the local cache where it is whole there, else downloaded into it. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path

from trainables.lora.text.sources import WANTED
from tune_lora.errors import InputError

_SETTINGS, _WEIGHTS = ("*.json", "*.model", "*.txt", "*.jinja"), "*.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")


def folder_of_hub_model(name: str, *, weights: bool = True) -> Path:
    """The folder of a hub's model, or of its tokenizer and settings alone. The hub is asked only where the cache does
    not have all of it.

    Raises:
        InputError: it is not in the cache and the hub cannot be reached, or does not have it, or it cannot be stored.
    """
    from huggingface_hub.errors import HFValidationError

    patterns = [*_SETTINGS, *([_WEIGHTS] if weights else [])]
    try:
        return _cached(name, patterns, weights=weights) or _downloaded(name, patterns)
    except HFValidationError:
        raise InputError(f"base {name!r}: is no hub name; {WANTED}") from None


def _cached(name: str, patterns: list[str], *, weights: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder, weights=weights) else None


def _is_whole(folder: Path, *, weights: bool) -> bool:
    """Whether a snapshot has what is needed: one that the tokenizer alone was fetched into has no weights, and an
    interrupted download not all of them."""
    if not (folder / "config.json").is_file() or not any((folder / tokenizer).is_file() for tokenizer in _TOKENIZERS):
        return False
    if not weights:
        return True
    if (folder / _INDEX).is_file():
        parts = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values()
        return all((folder / part).is_file() for part in set(parts))
    return any(folder.glob(_WEIGHTS))


def _downloaded(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # Of the HTTP library that the hub's client uses, whichever it is.
    transport: type[BaseException] = HfHubHTTPError.__bases__[0]
    unreachable = InputError(f"base {name!r}: is not in the local cache, and the hub cannot be reached; {WANTED}")
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError):
        raise unreachable from None
    except HfHubHTTPError as error:
        raise InputError(f"base {name!r}: the hub answered {error.response.status_code}; {WANTED}") from None
    except OSError as error:
        raise InputError(
            f"base {name!r}: cannot be stored in {constants.HF_HUB_CACHE} ({error.strerror or error}); must be a "
            "folder with room for it (HF_HOME names another)"
        ) from None
    except transport:
        raise unreachable from None
