"""A trainer in another's place: what both have in common."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.protocol import Params, Trainer


@dataclass(frozen=True)
class Wrapped:
    """What a `trainer` is asked before it trains, for those that have it train elsewhere or with others; each has its
    own `run`."""

    trainer: Trainer

    @property
    def budget_unit(self) -> str:
        """That of the trainer."""
        return self.trainer.budget_unit

    def horizon(self, params: Params) -> int:
        """That of the trainer."""
        return self.trainer.horizon(params)

    def check(self, params: Params) -> list[str]:
        """What the trainer says."""
        return self.trainer.check(params)
