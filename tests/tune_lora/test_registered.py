"""What Tune has registered is asked for once, and only while a study runs."""

from __future__ import annotations

from typing import Any

import pytest
from ray import tune
from ray.tune import registry

from tune_lora.registered import remembered


class Trainable(tune.Trainable):
    """Something to register."""


def test_it_is_asked_for_once_and_is_the_same(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    fetch = registry._internal_kv_get
    monkeypatch.setattr(registry, "_internal_kv_get", lambda key, **options: asked.append(key) or fetch(key, **options))
    tune.register_trainable("something", Trainable)
    with remembered():
        first = registry.get_trainable_cls("something")
        before = len(asked)
        assert all(registry.get_trainable_cls("something") is first for _ in range(5))
        assert len(asked) == before
        with pytest.raises(tune.TuneError, match="nobody"):
            registry.get_trainable_cls("nobody")
    assert first.__name__ == Trainable.__name__
    assert registry.get_trainable_cls("something") is not None
    assert len(asked) > before


def test_what_is_registered_while_it_lasts_is_found(ray_session: Any) -> None:
    with remembered():
        tune.register_trainable("later", Trainable)
        assert registry.get_trainable_cls("later").__name__ == Trainable.__name__
