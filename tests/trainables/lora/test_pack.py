"""A trial in a pack learns what it would have learnt alone, whoever joins, leaves or breaks beside it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.lora.small import attached, small
from tests.trainables.lora.small_ground import MICROS, SmallGround, alone, apart, context, exactly, same_batches
from trainables.lora.choices import OPTIMIZERS
from trainables.lora.grounds import alike
from trainables.lora.pack import Pack
from trainables.lora.packed_layers import PackedLayer
from trainables.lora.targets import frozen_modules
from trainables.lora.text.ground import similar
from trainables.protocol import Cause, TrialFailure
from tune_lora.errors import InputErrors

ROUNDING = ("AdamW8bit", "Lion")
"""They round, so the loss curve is compared in place of the weights."""
KINDS = {
    "plain": {},
    "convolutions": {"conv_rank": 3},
    "dora": {"dora": True, "conv_rank": 2},
    "dropout": {"dropout": 0.3, "conv_rank": 2},
    "some layers": {"ranks": {"to_q": 0}},
}
CONFIGURATIONS = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 5),
        "alpha": st.sampled_from([0.7, 2.5, 6.0]),
        "batch": st.integers(1, 3),
        "gradient_accumulation_steps": st.integers(1, 3),
        "max_grad_norm": st.sampled_from([0.0, 0.05, 1.0]),
        "optimizer_type": st.sampled_from([name for name in OPTIMIZERS if name not in ROUNDING]),
        "lr_scheduler": st.sampled_from(["constant", "cosine"]),
        "conv_rank": st.sampled_from([0, 2]),
        "dora": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.25]),
    }
)


def update_apart(pack, slot, params, seed, micros):
    """How far a slot is from the trial alone; asserts that both were shown the same."""
    task = pack._slots[slot].task
    theirs, _ = alone(params, seed, micros)
    start, _ = alone(params, seed, 0)
    assert same_batches(task.seen[-micros:], theirs.seen)
    return apart(task.adapter.state(), theirs.adapter.state(), start.adapter.state())


@settings(max_examples=25, deadline=None)
@given(data=st.data(), trials=st.lists(CONFIGURATIONS, min_size=1, max_size=4))
def test_an_update_is_that_of_training_alone_whoever_joins_and_leaves(data, trials):
    steps = 2 * MICROS
    joins = [data.draw(st.integers(0, steps - 1), label="joins") for _ in trials]
    leaves = [data.draw(st.integers(join + 1, steps), label="leaves") for join in joins]
    with exactly():
        pack, seats = Pack(SmallGround()), {}
        for step in range(steps + 1):
            for index in [index for index, leave in enumerate(leaves) if leave == step]:
                micros = step - joins[index]
                assert update_apart(pack, seats[index], trials[index], index, micros) < 1e-10
                pack.leave(seats[index])
            for index in [index for index, join in enumerate(joins) if join == step]:
                seats[index] = pack.join(context(trials[index], index))
            assert not pack.step().failures
        assert not pack.slots


@settings(max_examples=15, deadline=None)
@given(params=CONFIGURATIONS, cut=st.integers(0, 2 * MICROS), beside=CONFIGURATIONS)
def test_a_state_goes_on_in_another_pack_from_any_step(params, cut, beside):
    with exactly():
        first = Pack(SmallGround())
        slot = first.join(context(params, 5))
        for _ in range(cut):
            first.step()
        state = first.state(slot)
        first.leave(slot)
        second = Pack(SmallGround())
        second.join(context(beside, 6))
        slot = second.join(context(params, 5), state)
        for _ in range(2 * MICROS - cut):
            second.step()
        task = second._slots[slot].task
        theirs, _ = alone(params, 5, 2 * MICROS)
        assert same_batches(task.seen, theirs.seen[cut:])
        start, _ = alone(params, 5, 0)
        assert apart(task.adapter.state(), theirs.adapter.state(), start.adapter.state()) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_in_single_precision_stay_together(kind):
    trials = [
        {"units": 5, "rank": 4, **KINDS[kind]}, {"units": 5, "rank": 4, "alpha": 4.0, **KINDS[kind]},
        {"units": 5, "rank": 2, "batch": 3}, {"units": 5, "rank": 4, "gradient_accumulation_steps": 4},
    ]  # fmt: skip
    pack = Pack(SmallGround())
    seats = [pack.join(context(params, index)) for index, params in enumerate(trials)]
    for _ in range(20):
        assert not pack.step().failures
    for index, slot in enumerate(seats):
        assert update_apart(pack, slot, trials[index], index, 20) < 1e-4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_the_same_course(optimizer):
    params = {"units": 5, "optimizer_type": optimizer, "gradient_accumulation_steps": 2, "lr_warmup_steps": 3}
    pack = Pack(SmallGround())
    slot = pack.join(context(params, 0))
    pack.join(context({"units": 5, "rank": 3, "batch": 1}, 1))
    curve = [pack.step().losses[slot] for _ in range(20)]
    _, wanted = alone(params, 0, 20)
    assert curve == pytest.approx(wanted, rel=1e-3 if optimizer in ROUNDING else 1e-4)
    assert curve[-MICROS] != pytest.approx(curve[0])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_a_loss_scale_for_each(precision):
    params = [{"units": 5, "precision": precision, "rank": rank} for rank in (4, 4, 2)]
    pack = Pack(SmallGround())
    seats = [pack.join(context(one, index)) for index, one in enumerate(params)]
    with torch.autocast("cpu", {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]):
        curves = list(
            zip(*([step.losses[slot] for slot in seats] for step in (pack.step() for _ in range(20))), strict=True)
        )
        wanted = [alone(one, index, 20)[1] for index, one in enumerate(params)]
    for ours, theirs in zip(curves, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=0.05)
    scalers = {id(pack._slots[slot].trial.lane._scaler) for slot in seats}
    assert len(scalers) == (3 if precision == "fp16" else 1)


def states_of(pack, seats):
    return [pack._slots[slot].task.adapter.state() for slot in seats]


def all_equal(ours, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["weights", "loss", "gradient"])
def test_what_breaks_in_one_trial_changes_no_bit_of_the_others(kind, where):
    harm = {
        "weights": {},
        "loss": {1: lambda loss: loss * float("nan")},
        "gradient": {1: lambda loss: loss.register_hook(lambda gradient: gradient * float("inf")) and loss},
    }
    found = []
    for is_harmed in (False, True):
        pack = Pack(SmallGround(harm[where] if is_harmed else None))
        seats = [pack.join(context(KINDS[kind], seed)) for seed in range(3)]
        if is_harmed and where == "weights":
            with torch.no_grad():
                next(iter(pack._slots[seats[1]].task.adapter.parameters())).fill_(float("nan"))
        stepped = pack.step()
        assert set(stepped.failures) == ({seats[1]} if is_harmed else set())
        found.append(states_of(pack, (seats[0], seats[2])))
    failure = stepped.failures[seats[1]]
    assert failure.cause is (Cause.GRADIENT_EXPLOSION if where == "gradient" else Cause.NAN_LOSS)
    assert all(itertools.starmap(all_equal, zip(*found, strict=True)))
    assert pack.slots == (seats[0], seats[2])
    for _ in range(2 * MICROS - 1):
        assert not pack.step().failures
    for seed, slot in ((0, seats[0]), (2, seats[2])):
        assert update_apart(pack, slot, KINDS[kind], seed, 2 * MICROS) < 1e-4


def test_reports_are_those_of_the_trial_alone_and_the_last_is_final(tmp_path):
    pack = Pack(SmallGround())
    first, second = (
        pack.join(context({"rank": rank, "ema_decay": 0.9}, rank, tmp_path, decide_at=frozenset({1})))
        for rank in (2, 5)
    )
    reports = {first: [], second: []}
    while len(reports[second]) < 2:
        for slot, report in pack.step().reports.items():
            reports[slot].append(report)
    task, _ = alone({"rank": 2, "ema_decay": 0.9}, 2, 2 * MICROS)
    assert [report.budget for report in reports[first]] == [1, 2]
    assert [report.final for report in reports[first]] == [False, True]
    assert reports[first][0].metrics["looked"] == 1.0
    with task.engine.lanes[0].judged():
        assert reports[first][-1].metrics["val_loss"] == pytest.approx(task.validate()["val_loss"], rel=1e-5)
    assert pack._slots[first].task.judged == [dict(reports[first][-1].metrics)]
    assert pack.step() == type(pack.step())()  # who is complete waits to be taken out


def test_a_checkpoint_serves_alone_and_in_a_pack(tmp_path):
    pack = Pack(SmallGround())
    slot = pack.join(context({}, 1, tmp_path))
    pack.join(context({"rank": 2}, 2, tmp_path))
    report = next(found for found in iter(lambda: pack.step().reports.get(slot), 0) if found is not None)
    report.save(tmp_path)
    again = Pack(SmallGround())
    back = again.join(context({}, 1, tmp_path, restore=tmp_path))
    for _ in range(MICROS):
        again.step()
    theirs, _ = alone({}, 1, 2 * MICROS)
    start, _ = alone({}, 1, 0)
    assert apart(again._slots[back].task.adapter.state(), theirs.adapter.state(), start.adapter.state()) < 1e-4


def test_the_base_is_what_it_was_when_all_have_left():
    ground = SmallGround()
    names = [name for name, _ in ground.model.named_modules()]
    x = torch.randn(3, 4, 6, 6)
    before = ground.model(x)
    pack = Pack(ground)
    for seed in range(3):
        pack.join(context({"conv_rank": 2}, seed))
    assert [name for name, _ in frozen_modules(ground.model)] == names
    assert torch.equal(ground.model(x), before)  # nobody was told to speak
    pack.step()
    pack.close()
    assert [name for name, _ in ground.model.named_modules()] == names
    assert torch.equal(ground.model(x), before)


def test_a_base_with_an_adapter_of_its_own_takes_no_pack_and_the_other_way_round():
    ground = SmallGround()
    adapter = attached(ground.model)
    pack = Pack(ground)
    with pytest.raises(ValueError, match="adapter of its own"):
        pack.join(context({}, 0))
    assert not pack.slots
    adapter.detach()
    pack.join(context({}, 0))
    with pytest.raises(ValueError, match="has an adapter already"):
        attached(ground.model)


def test_a_trial_on_several_processes_is_refused_in_one_line():
    class Two:
        rank, size = 0, 2

    with pytest.raises(InputErrors) as caught:
        Pack(SmallGround()).join(dataclasses.replace(context({}, 0), group=Two()))
    (line,) = caught.value.mistakes
    assert "2 processes" in line and "must be one" in line


def test_a_time_limit_ends_one_trial_and_no_other(monkeypatch):
    ground = SmallGround()
    course = ground.course
    monkeypatch.setattr(
        ground, "course", lambda params: dataclasses.replace(course(params), timeout_seconds=params.get("limit"))
    )
    pack = Pack(ground)
    late, other = pack.join(context({"limit": -1.0}, 0)), pack.join(context({}, 1))
    stepped = pack.step()
    assert stepped.failures[late].cause is Cause.TRIAL_TIMEOUT
    assert set(stepped.losses) == {other}


def test_rows_that_nobody_told_of_are_refused():
    pack = Pack(SmallGround())
    pack.join(context({}, 0))
    model = pack._ground.model
    pack._routing.tell([model], [(0, 3)])
    with pytest.raises(Exception, match="got 5 rows, must be 3"):
        model(torch.randn(5, 4, 6, 6))


@pytest.mark.parametrize(
    ("ranks", "runs"),
    [
        ((4, 2, 4, 2, 4), [(2, 2, 4, 4, 4)]),  # a product takes longer to begin than to compute
        ((64, 48, 64), [(48, 64, 64)]),
        ((128, 8, 8), [(8, 8), (128,)]),  # padded, most of the products would be zeros
    ],
)
def test_updates_of_like_ranks_are_computed_together(ranks, runs):
    pack = Pack(SmallGround())
    for seed, rank in enumerate(ranks):
        pack.join(context({"rank": rank}, seed))
    pack.step()
    layer = next(module for module in pack._ground.model.modules() if isinstance(module, PackedLayer))
    (plan,) = layer._plans.values()
    assert [[run.ranks for run in part.runs] for part in plan] == [runs]


@given(lengths=st.lists(st.integers(1, 2000), max_size=12))
def test_no_row_is_padded_to_more_than_twice_its_length(lengths):
    groups = similar(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        assert max(lengths[place] for place in group) <= 2 * min(lengths[place] for place in group)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_base_that_draws_in_training_is_refused(share):
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_dropout = share

    found = alike({}, [Dropping()], recomputes=False, dropout="lora_dropout")
    assert bool(found) is (share > 0)
    assert not found or "Dropping drops activations" in found[0]
    assert not alike({}, [small()], recomputes=False, dropout="lora_dropout")


def test_what_is_computed_twice_must_be_for_all_and_draws_nothing():
    beside = alike({"gradient_checkpointing": True}, [], recomputes=False, dropout="lora_dropout")
    assert "got true; must be false" in beside[0]
    drawn = alike({"gradient_checkpointing": True, "lora_dropout": 0.1}, [], recomputes=True, dropout="lora_dropout")
    assert "lora_dropout: got 0.1" in drawn[0]


def test_a_lack_of_memory_is_said_of_the_pack(monkeypatch):
    pack = Pack(SmallGround())
    pack.join(context({}, 0))

    def refuses(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(pack._ground, "losses", refuses)
    with pytest.raises(TrialFailure) as caught:
        pack.step()
    assert caught.value.cause is Cause.OUT_OF_MEMORY
