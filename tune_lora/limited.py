"""As many trials at a time as fit now: Tune's own limit is a number that never changes, and nodes join and leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from tune_lora.unsaved import Unsaved


class Limited(Unsaved, Searcher):
    """A searcher that begins nothing while `limit()` trials run."""

    def __init__(self, searcher: Searcher, limit: Callable[[], int]) -> None:
        super().__init__()
        self._inner, self._limit = searcher, limit
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A new trial, where there is room for one."""
        if len(self._live) >= self._limit():
            return None
        answer: dict[str, Any] | str | None = self._inner.suggest(trial_id)
        if isinstance(answer, dict):
            self._live.add(trial_id)
        return answer

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Handed on."""
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Handed on; its room is free."""
        self._live.discard(trial_id)
        self._inner.on_trial_complete(trial_id, result=result, error=error)

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """The space, metric and direction are the study's own."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a new searcher on the same study goes on."""
