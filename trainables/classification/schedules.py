"""Learning-rate schedules as pure functions of the epoch: one multiplier for every parameter group."""

from __future__ import annotations

import math

from trainables.classification.settings import SCHEDULES, Chosen

LINEAR_END = 0.01


def multiplier(
    name: str, epoch: int, *, epochs: int, step_size: int = 15, gamma: float = 0.1, floor_share: float = 0.0
) -> float:
    """Share of the starting rate in an epoch (0-based) of a training that has `epochs` of them.

    ``linear`` falls to 1% at `epochs`, ``step`` by `gamma` every `step_size` epochs, ``cosine`` to `floor_share` at
    `epochs`: torch's LinearLR, StepLR and CosineAnnealingLR (Loshchilov and Hutter 2017). ``plateau`` depends on what
    is measured (`Plateau`) and is 1 here.

    Raises:
        ValueError: the name is not one of `SCHEDULES`.
    """
    if name in ("none", "plateau"):
        return 1.0
    if name == "linear":
        return 1.0 - (1.0 - LINEAR_END) * min(1.0, epoch / epochs)
    if name == "step":
        return float(gamma ** (epoch // step_size))
    if name == "cosine":
        return floor_share + (1.0 - floor_share) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, epoch / epochs)))
    raise ValueError(f"scheduler.type is {name!r}; must be one of {', '.join(SCHEDULES)}")


class Plateau:
    """Multiplies the rate by `gamma` once the value has not improved for more than `patience` epochs, as torch's
    ReduceLROnPlateau does with threshold 0."""

    def __init__(self, patience: int, gamma: float, *, higher_is_better: bool) -> None:
        self._patience, self._gamma, self._sign = patience, gamma, 1.0 if higher_is_better else -1.0
        self.factor, self._best, self._waited = 1.0, -math.inf, 0

    def seen(self, value: float) -> None:
        """Takes the value of an epoch."""
        if self._sign * value > self._best:
            self._best, self._waited = self._sign * value, 0
            return
        self._waited += 1
        if self._waited > self._patience:
            self.factor, self._waited = self.factor * self._gamma, 0

    def state(self) -> list[float]:
        """All that is needed to continue."""
        return [self.factor, self._best, float(self._waited)]

    def restore(self, state: list[float]) -> None:
        """Loads what `state` gave."""
        self.factor, self._best, self._waited = state[0], state[1], int(state[2])


class Schedule:
    """The schedule of one training, the same multiplier for all groups. The cosine's floor is a rate: of the highest
    group it is what the settings say, of the others as much lower as they start lower."""

    def __init__(self, settings: Chosen, peak: float, *, higher_is_better: bool) -> None:
        self._settings = settings
        self._floor_share = min(1.0, settings["scheduler.floor"] / peak) if peak > 0 else 1.0
        self._plateau = (
            Plateau(settings["scheduler.patience"], settings["scheduler.gamma"], higher_is_better=higher_is_better)
            if settings["scheduler.type"] == "plateau"
            else None
        )

    def at(self, epoch: int) -> float:
        """The multiplier in an epoch (0-based)."""
        if self._plateau is not None:
            return self._plateau.factor
        return multiplier(
            self._settings["scheduler.type"],
            epoch,
            epochs=self._settings.epochs,
            step_size=int(self._settings["scheduler.step_size"]),
            gamma=self._settings["scheduler.gamma"],
            floor_share=self._floor_share,
        )

    def seen(self, value: float) -> None:
        """Takes what was measured in an epoch."""
        if self._plateau is not None:
            self._plateau.seen(value)

    def state(self) -> list[float]:
        """All that is needed to continue; empty for those that are functions of the epoch."""
        return [] if self._plateau is None else self._plateau.state()

    def restore(self, state: list[float]) -> None:
        """Loads what `state` gave."""
        if self._plateau is not None:
            self._plateau.restore(state)
