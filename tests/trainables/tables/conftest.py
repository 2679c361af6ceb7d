"""Small tables in a folder of their own, and a cache of molecules that outlives no session."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where molecules are kept by the tests of this folder."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_LORA_CACHE", str(cache))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a table and returns its path, relative to a working folder that holds it, so that messages are short."""
    monkeypatch.chdir(tmp_path)

    def to(text: str, name: str = "data.csv") -> Path:
        Path(name).write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
        return Path(name)

    return to
