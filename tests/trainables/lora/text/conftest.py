"""What tests of text training share: a small model with its data, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainables.lora.text import small_model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def own_cache(private_cache):
    """No test here meets what another left."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A two-layer Qwen2 with its tokenizer."""
    return small_model.write_model(tmp_path_factory.mktemp("model") / "small-qwen2")


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> Path:
    """96 questions with answers."""
    return small_model.write_data(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.fixture(scope="session")
def tokenizer():
    return small_model.tokenizer()
