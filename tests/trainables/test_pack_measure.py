"""What is measured to find how many trials share a base: on curves with a clock that is turned by hand, and on the real
small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.lora.text import small_model
from tests.trainables.lora.text.test_architectures import write
from trainables import demo_character, pack_measure
from trainables.curve import Curve, CurvePack
from trainables.diffusion_lora import DiffusionLora
from trainables.llm_lora import LlmLora
from trainables.lora.text.settings import TextSettings
from trainables.pack_measure import measured
from trainables.pack_size import PackSize, Room
from trainables.protocol import Cause, Stepped, TrialContext, TrialFailure

GIB = 1024**3
FAR = 100_000


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(CurvePack):
    """A pack on which a step takes what `seconds` says of so many trials."""

    def __init__(self, trainer: TimedCurve, context: TrialContext) -> None:
        super().__init__(trainer, context)
        self._of = trainer

    def step(self, resting: frozenset[int] = frozenset()) -> Stepped:
        stepping = set(self.slots) - resting
        self._of.stepped.append(len(stepping))
        if self._of.out_of_memory and len(stepping) >= self._of.out_of_memory:
            raise TrialFailure(Cause.OUT_OF_MEMORY, "asked for 3 GiB")
        stepped = super().step(resting)
        self._of.clock.now += self._of.seconds_of(len(stepping))
        return stepped


class TimedCurve(Curve):
    """Curves whose packs tell the time."""

    def __init__(self, seconds_of: Any, out_of_memory: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.__dict__ |= {"seconds_of": seconds_of, "out_of_memory": out_of_memory}
        self.__dict__ |= {"clock": Clock(), "stepped": []}

    def pack(self, context: TrialContext) -> CurvePack:
        return Timed(self, context)


def curve(seed: int, **params: Any) -> TrialContext:
    return TrialContext({"learning_rate": 1e-3, "max_train_epochs": FAR} | params, Path(), seed=seed)


def of_curves(trainer: TimedCurve, typical: list[TrialContext] | None = None, **asked: Any) -> PackSize:
    timed = [curve(seed) for seed in range(4)] if typical is None else typical
    return measured(trainer, timed, curve(9), room=asked.pop("room", Room()), clock=trainer.clock, **asked)


@pytest.fixture
def _no_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a while where torch is loaded, and curves hold none."""
    monkeypatch.setattr(pack_measure.high_water, "give_back", lambda: None)


by_hand = pytest.mark.usefixtures("_no_memory_is_given_back")


def rates(found: PackSize) -> dict[int, float]:
    return {one.size: pytest.approx(one.rate) for one in found.measured}


@by_hand
def test_a_step_that_costs_the_same_however_many_there_are() -> None:
    found = of_curves(TimedCurve(lambda _: 0.5))
    assert found.size == 16
    alone = 16 / 0.5  # a curve weighs its rank
    assert {one.size: one.rate for one in found.measured} == pytest.approx(
        {1: alone, 2: 2 * alone, 4: 4 * alone, 8: 8 * alone, 16: 16 * alone}
    )


@by_hand
def test_a_step_that_costs_each_trial_the_same() -> None:
    found = of_curves(TimedCurve(lambda many: 0.5 * many))
    assert found.size == 1 and [one.size for one in found.measured] == [1, 2]
    assert "1.00 times as fast" in found.why


@by_hand
def test_a_step_with_a_fixed_part_and_a_part_of_each() -> None:
    found = of_curves(TimedCurve(lambda many: 1.0 + 0.25 * many))
    gains = {many: many * 1.25 / (1 + 0.25 * many) for many in (2, 4, 8, 16)}
    assert found.size == 16  # 2.5 times as much at 8, 2.0 at 4: 4.0 at 16 is 20% more than 3.3 at 8
    base = found.measured[0].rate
    assert {one.size: one.rate / base for one in found.measured[1:]} == pytest.approx(gains)


@by_hand
def test_another_load_on_the_machine_befalls_both_sides() -> None:
    """The machine gets slower and slower while it is measured: what is compared is measured in turns."""
    trainer = TimedCurve(lambda many: (1.0 + 0.05 * many) * (1 + 0.002 * len(trainer.stepped)))
    found = of_curves(trainer)
    assert found.size == 16
    base = found.measured[0].rate
    for one in found.measured[1:]:
        assert one.rate / base == pytest.approx(one.size * 1.05 / (1 + 0.05 * one.size), rel=0.15)


@by_hand
def test_each_size_holds_the_same_trials() -> None:
    """Four configurations of other weights: alone, in pairs, all together."""
    weights = [4, 8, 16, 32]
    typical = [curve(seed, network_dim=rank) for seed, rank in enumerate(weights)]
    found = of_curves(TimedCurve(lambda _: 1.0), typical, most=4)
    assert {one.size: one.rate for one in found.measured} == pytest.approx({1: 60 / 4, 2: 60 / 2, 4: 60})


@by_hand
def test_those_that_cannot_share_the_base_are_left_out() -> None:
    typical = [curve(0, precision="bf16"), curve(1), curve(2, precision="bf16"), curve(3), curve(4)]
    trainer = TimedCurve(lambda _: 0.5)
    assert of_curves(trainer, typical, most=2).size == 2  # two of the three that can: a power of two
    only = [curve(0, precision="bf16")]
    assert of_curves(TimedCurve(lambda _: 0.5), only, most=2).size == 2, "of the heaviest, then"


@by_hand
def test_a_lack_of_memory_on_the_way_ends_it() -> None:
    found = of_curves(TimedCurve(lambda _: 0.5, out_of_memory=8))
    assert found.size == 4
    assert found.why.endswith("; 8 did not fit into memory (asked for 3 GiB))")
    alone = of_curves(TimedCurve(lambda _: 0.5, out_of_memory=1))
    assert alone.size == 1 and alone.why == "packing: off: 1 did not fit into memory (asked for 3 GiB)"


@by_hand
def test_no_step_is_tried_that_is_forecast_not_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_measure.high_water, "held", lambda: 10 * GIB)
    trainer = TimedCurve(lambda _: 0.5)
    # Each step leaves the mark where so many trials leave it: 2 GiB for each.
    monkeypatch.setattr(pack_measure.high_water, "mark", lambda: (10 + 2 * trainer.stepped[-1]) * GIB)
    found = of_curves(trainer, room=Room(20 * GIB))
    assert found.size == 4 and max(trainer.stepped) == 4
    assert found.why.endswith("; 8 trials would need 26.0 GiB of RAM and 0% more, of 20.0)")
    # The processes of the trials themselves count as well.
    assert of_curves(TimedCurve(lambda _: 0.5), room=Room(20 * GIB), beside=2 * GIB).size < 4


@by_hand
def test_a_trial_that_fails_or_ends_meanwhile_begins_again() -> None:
    failing = of_curves(TimedCurve(lambda _: 0.5, nan_above=5e-4), most=4)  # each at its second epoch
    assert failing.size == 4
    ending = of_curves(TimedCurve(lambda _: 0.5), [curve(seed, max_train_epochs=3) for seed in range(4)], most=4)
    assert ending.size == 4
    assert rates(failing) == rates(ending)


@by_hand
def test_nobody_sits_on_the_base_afterwards() -> None:
    made: list[CurvePack] = []

    class Noting(TimedCurve):
        def pack(self, context: TrialContext) -> CurvePack:
            made.append(super().pack(context))
            return made[-1]

    of_curves(Noting(lambda _: 0.5), most=2)
    assert [pack.slots for pack in made] == [()]


# --- the real thing --------------------------------------------------------------------------------------------------


@pytest.fixture
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack_measure, "TURNS", 1)
    monkeypatch.setattr(pack_measure, "WARM_UP", 1)
    monkeypatch.setattr(pack_measure, "ROUND", 2)
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_private_cache")
def test_images_are_measured_and_leave_nothing_behind(tmp_path: Path) -> None:
    folder, shared = tmp_path / "images", {}
    demo_character.write_dataset(folder, count=8)
    trainer = DiffusionLora("tiny-sd", str(folder))
    params = {"network_alpha": 2, "learning_rate": 1e-3, "max_train_epochs": FAR, "train_batch_size": 1}
    contexts = [
        TrialContext(params | {"network_dim": rank}, tmp_path, seed=rank, shared=shared) for rank in (2, 4, 8, 16)
    ]
    heaviest = TrialContext(params | {"network_dim": 16, "text_encoder_lr": 1e-4}, tmp_path, seed=9, shared=shared)
    found = measured(trainer, contexts, heaviest, room=Room(64 * GIB), most=4)
    assert found.size in (1, 2, 4), found.why
    assert [one.size for one in found.measured][:2] == [1, 2]
    assert all(one.rate > 0 and 2**27 < one.need.memory < 16 * GIB and not one.need.gpu for one in found.measured)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "cache"}, "no report was written"


@pytest.mark.usefixtures("_private_cache")
def test_a_base_that_cannot_be_shared_is_said_with_its_reason(tmp_path: Path) -> None:
    base = write("gpt2", tmp_path / "small-gpt2")
    data = small_model.write_data(tmp_path / "questions.jsonl")
    trainer = LlmLora(str(base), str(data), TextSettings(max_length=64))
    params = {"lora_rank": 4, "lora_alpha": 8, "learning_rate": 1e-3, "epochs": FAR}
    context = TrialContext(params, tmp_path, shared={})
    found = measured(trainer, [context], context, room=Room())
    assert found.size == 1
    assert found.why.startswith("packing: off: base: ") and "drops activations" in found.why
