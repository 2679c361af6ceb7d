"""A trainer of the user's own: a generator function ``train(params, trial)`` in one file (docs/own_trainer.md).

It yields a mapping of metrics after each unit of its budget, or a `Report` where it says more: a budget of its own, a
checkpoint, images.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainables import user_module
from trainables.protocol import Cause, Params, Report, TrialContext, TrialFailure
from tune_lora.errors import InputError

_STATE = "custom.json"


@dataclass(frozen=True)
class Trial:
    """What a function gets beside its parameters.

    `folder` is the trial's own, for whatever it writes. `seed` is the trial's. `horizon` is the budget at which it is
    complete. `restore` is a folder that an earlier ``Report(save=...)`` wrote, and `done` the budget it stands at; None
    and 0 for a trial that begins. `decide_at` are the budgets at which somebody decides whether it goes on. `threads`
    are the CPU threads it may use. `shared` outlives the trial: what is put there serves the next one on the worker.
    """

    folder: Path
    seed: int
    horizon: int
    restore: Path | None = None
    done: int = 0
    decide_at: frozenset[int] = frozenset()
    threads: int = 1
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Custom:
    """The trainer that runs a function of the user's.

    `target` is ``module:function``, the module a path or importable. `length` is the horizon, or the name of the
    setting that holds it; None: the function's attribute ``horizon``. `unit` is what the budget counts. `objective`
    are the metrics that the last report must hold.
    """

    target: str
    length: int | str | None = None
    unit: str | None = None
    objective: tuple[str, ...] = ()

    @property
    def budget_unit(self) -> str:
        """``epoch`` unless the study or the function's attribute ``unit`` says otherwise."""
        return self.unit or str(getattr(self.function(), "unit", "epoch"))

    def function(self) -> Callable[..., Any]:
        """The user's function. Raises InputError where it cannot be had."""
        return user_module.load(self.target)

    def metrics(self) -> tuple[str, ...] | None:
        """The function's attribute ``metrics``; None where it has none."""
        named = getattr(self.function(), "metrics", None)
        return tuple(named) if isinstance(named, list | tuple) else None

    def length_setting(self) -> int | str | Callable[[Params], Any]:
        """The horizon, the name of the setting that holds it, or what works it out.

        Raises:
            InputError: nobody says it.
        """
        found = self.length if self.length is not None else getattr(self.function(), "horizon", None)
        if found is None:
            raise InputError(
                "custom.horizon is missing; must be a whole number or the name of a setting such as epochs (or the "
                f"attribute `horizon` of {self.target})"
            )
        return found  # an attribute may be anything; `check` looks at what comes of it

    def horizon(self, params: Params) -> int:
        """Budget at which a trial is complete.

        Raises:
            InputError: nobody says it, or what is said is none.
        """
        said = self.length_setting()
        if isinstance(said, str) and said not in params:
            raise InputError(f"{said} is missing; it is the horizon of a trial (custom.horizon)")
        found = _worked_out(said, params) if callable(said) else params[said] if isinstance(said, str) else said
        if not _is_whole(found) or found < 1:
            raise InputError(
                f"{said if isinstance(said, str) else 'custom.horizon'}: got {_shown(found)}; must be a whole number "
                "from 1"
            )
        return int(found)

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration: a horizon that is none."""
        try:
            self.horizon(params)
        except InputError as error:
            return [str(error)]
        return []

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """The function's reports, each at its budget; the last one at the horizon, also where it ends early."""
        horizon, done = self.horizon(context.params), _done(context.restore)
        trial = Trial(
            context.folder, context.seed, horizon, context.restore, done, context.decide_at, context.threads,
            context.shared,
        )  # fmt: skip
        yielded = self.function()(dict(context.params), trial)
        last = Report(done, _metrics_of(context.restore))
        try:
            for item in _memory_watched(yielded):
                report = self._report(item, last, horizon)
                if report.final:
                    yield self._ended(report)
                    return
                yield report
                last = replace(report, metrics={**last.metrics, **report.metrics})
            yield from self._ended_early(last, horizon, context.decide_at)
        finally:
            yielded.close()

    def _report(self, item: Any, last: Report, horizon: int) -> Report:
        if not isinstance(item, Report | Mapping):
            raise self._wrong(
                f"yielded {_shown(item)} after budget {last.budget}; must be a mapping of metrics or a Report"
            )
        report = item if isinstance(item, Report) else Report(last.budget + 1, item)
        if not last.budget < report.budget <= horizon:
            raise self._wrong(
                f"yielded a Report at budget {report.budget} after {last.budget}; must be above it and up to {horizon}"
            )
        metrics = self._numbers(report)
        known = {**last.metrics, **metrics}
        if report.save is not None:
            report = replace(report, save=functools.partial(_save, report.save, report.budget, known))
        if report.final or report.budget == horizon:  # what was not measured again at the end is what it was
            return replace(report, budget=horizon, metrics=known, final=True)
        return replace(report, metrics=metrics)

    def _numbers(self, report: Report) -> dict[str, float]:
        found = {}
        for name, value in report.metrics.items():
            try:
                found[str(name)] = float(value)
            except (TypeError, ValueError):
                raise self._wrong(f"yielded {name}: {_shown(value)} at {report.budget}; must be a number") from None
            if not math.isfinite(found[str(name)]):
                # The finite ones of its mates are worth keeping.
                finite = {key: number for key, number in found.items() if math.isfinite(number)}
                raise TrialFailure(
                    Cause.NAN_LOSS, f"{name} is {float(value)} at {self.budget_unit} {report.budget}", finite
                )
        return found

    def _ended(self, report: Report) -> Report:
        missing = [name for name in self.objective if name not in report.metrics]
        if missing:
            named = ", ".join(sorted(report.metrics)) or "nothing"
            raise self._wrong(f"never reported {missing[0]!r}, which the objective is about; it reported {named}")
        return report

    def _ended_early(self, last: Report, horizon: int, decide_at: Iterable[int]) -> Generator[Report, None, None]:
        """What is left of the budget of a function that stopped by itself: its last values, wherever somebody looks."""
        if not last.metrics:
            raise self._wrong("ended before it yielded anything; must yield metrics")
        for budget in sorted(at for at in decide_at if last.budget < at < horizon):
            yield Report(budget, last.metrics)
        yield self._ended(Report(horizon, last.metrics, images=last.images, final=True))

    def _wrong(self, what: str) -> TrialFailure:
        return TrialFailure(Cause.CRASH, f"{self.target} {what}")


def _worked_out(length: Callable[[Params], Any], params: Params) -> Any:
    """What the user's function makes of a configuration."""
    try:
        return length(params)
    except Exception as error:  # noqa: BLE001  # it is the user's program, and may fail in any way
        line = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"custom.horizon: the function's attribute `horizon` raised {type(error).__name__}: {line}; must give a "
            "whole number from 1"
        ) from None


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()  # neither NaN nor infinity is
    return isinstance(value, int) and not isinstance(value, bool)


def _memory_watched(yielded: Generator[Any, None, None]) -> Generator[Any, None, None]:
    try:
        yield from yielded
    except (MemoryError, RuntimeError) as error:
        # torch names it so, and is not imported for a function that may have no use for it.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            lines = str(error).splitlines() or ["out of memory"]
            raise TrialFailure(Cause.OUT_OF_MEMORY, lines[0]) from error
        raise


def _save(save: Callable[[Path], None], budget: int, metrics: Mapping[str, float], folder: Path) -> None:
    save(folder)
    (folder / _STATE).write_text(json.dumps({"budget": budget, "metrics": dict(metrics)}))


def _done(restore: Path | None) -> int:
    return int(_state(restore).get("budget", 0))


def _metrics_of(restore: Path | None) -> dict[str, float]:
    return dict(_state(restore).get("metrics", {}))


def _state(restore: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((restore / _STATE).read_text()) if restore else {}
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
