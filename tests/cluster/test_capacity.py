"""How many trials fit: never more than there is, never a share across two devices, and as many as that allows."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.capacity import concurrent, gpus_per_trial, slots
from cluster.spec import Capacity, TrialResources
from tune_lora.errors import InputError

# As people write them: whole devices, halves, tenths, and n-ths of one.
shares = st.one_of(st.integers(1, 20).map(lambda parts: 1 / parts), st.integers(1, 100).map(lambda parts: parts / 100))
cpus = st.one_of(st.integers(1, 64).map(float), shares)
gpus = st.one_of(st.just(0.0), st.integers(1, 8).map(float), shares)
machines = st.builds(Capacity, cpu=st.integers(1, 256).map(float), gpu=st.integers(0, 16).map(float))


def exact(number: float) -> Fraction:
    """The number that was meant: 0.1 is a tenth, 1 / 3 a third."""
    return Fraction(number).limit_denominator(1000)


@given(cpus, gpus, machines)
def test_what_runs_side_by_side_needs_no_more_than_there_is(cpu, gpu, machine):
    assume(cpu <= machine.cpu and gpu <= machine.gpu)
    count = slots(TrialResources(cpu, gpu), machine)
    assert count >= 1
    assert count * exact(cpu) <= machine.cpu
    assert count * exact(gpu) <= machine.gpu


@given(cpus, shares, machines)
def test_shares_of_a_gpu_fit_on_one_device_each(cpu, share, machine):
    assume(cpu <= machine.cpu and machine.gpu >= 1)
    count = slots(TrialResources(cpu, share), machine)
    on_one_device = int(1 / exact(share))
    assert count <= on_one_device * machine.gpu
    assert on_one_device * exact(share) <= 1


@given(cpus, gpus, machines)
def test_one_more_trial_would_not_fit(cpu, gpu, machine):
    assume(cpu <= machine.cpu and gpu <= machine.gpu)
    more = slots(TrialResources(cpu, gpu), machine) + 1
    out_of_cpus = more * exact(cpu) > machine.cpu
    places = machine.gpu * int(1 / exact(gpu)) if 0 < gpu < 1 else machine.gpu / gpu if gpu else more
    assert out_of_cpus or more > places


@given(cpus, gpus, machines, st.sampled_from(["cpu", "gpu"]), st.integers(1, 8))
def test_what_does_not_fit_once_is_one_clear_line(cpu, gpu, machine, short, by):
    cpu, gpu = (machine.cpu + by, gpu) if short == "cpu" else (cpu, machine.gpu + by)
    with pytest.raises(InputError, match=r"^resources\.(cpu|gpu): got .* a trial; must be at most .*$"):
        slots(TrialResources(cpu, gpu), machine)


@pytest.mark.parametrize(
    ("cpu", "gpu", "machine", "count"),
    [
        (1, 0, Capacity(2, 0), 2),
        (0.1, 0, Capacity(1, 0), 10),
        (3, 0, Capacity(8, 0), 2),
        (1, 1, Capacity(16, 4), 4),
        (8, 1, Capacity(16, 4), 2),
        (1, 2, Capacity(16, 5), 2),
        (1, 0.5, Capacity(16, 2), 4),
        (1, 0.4, Capacity(16, 2), 4),  # five would fit by the sum, but the fifth on no single device
        (1, 0.6, Capacity(16, 3), 3),
        (1, 1 / 3, Capacity(16, 1), 3),
    ],
)
def test_known_machines(cpu, gpu, machine, count):
    assert slots(TrialResources(cpu, gpu), machine) == count


def test_a_machine_without_a_gpu_is_called_that():
    with pytest.raises(InputError, match=r"resources\.gpu: got 1 a trial; .*this machine or cluster has no GPU"):
        slots(TrialResources(1, 1), Capacity(2, 0))


def test_one_gpu_a_trial_unless_said_otherwise():
    assert gpus_per_trial(None, Capacity(4, 2)) == 1
    assert gpus_per_trial(None, Capacity(4, 0)) == 0
    assert gpus_per_trial(0.25, Capacity(4, 2)) == 0.25
    assert gpus_per_trial(0, Capacity(4, 2)) == 0


def test_processes_that_train_together_have_a_gpu_each_where_there_are_any():
    assert gpus_per_trial(None, Capacity(4, 2), processes=2) == 2
    assert gpus_per_trial(None, Capacity(4, 0), processes=2) == 0
    assert gpus_per_trial(0, Capacity(4, 2), processes=2) == 0


@given(st.integers(1, 100), st.integers(1, 100))
def test_as_many_as_fit_or_as_were_asked_for_but_never_more(asked, fitting):
    assert concurrent("auto", fitting) == fitting
    if asked <= fitting:
        assert concurrent(asked, fitting) == asked
    else:
        with pytest.raises(InputError, match=rf"resources\.concurrent: got {asked}; must be at most {fitting}"):
            concurrent(asked, fitting)
