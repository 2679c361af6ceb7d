"""Machine by machine: what is promised to a trial, and how many share a GPU, hold on every cluster."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import capacity as fits
from cluster.spec import Capacity, Footprint, Node, TrialResources
from tune_lora.errors import InputError

GIB = 1024**3
nodes = st.builds(
    Node,
    name=st.sampled_from(["a", "b", "c"]),
    cpu=st.integers(0, 64).map(float),
    gpu=st.integers(0, 8).map(float),
    memory=st.integers(1, 512).map(lambda gib: float(gib * GIB)),
    kind=st.sampled_from(["cpu", "T4", "H100"]),
)
clusters = st.lists(nodes, min_size=1, max_size=6).map(lambda found: Capacity.of(tuple(found)))
trials = st.builds(
    TrialResources,
    cpu=st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 8.0]),
    gpu=st.sampled_from([0.0, 0.1, 0.25, 0.3333, 0.5, 0.75, 1.0, 2.0, 4.0]),
    memory=st.sampled_from([0, GIB // 2, GIB, 7 * GIB]),
)
footprints = st.builds(
    lambda memory, need, device: Footprint(memory, min(need, device), device),
    st.integers(1, 64 * GIB), st.integers(1, 100 * GIB), st.integers(GIB, 141 * GIB),
)  # fmt: skip


def exact(number: float) -> Fraction:
    return Fraction(number).limit_denominator(10_000)


@given(trials, clusters)
def test_no_machine_is_given_more_than_it_has(trial, there):
    for count, node in zip(fits.placement(trial, there), there.machines, strict=True):
        assert count * exact(trial.cpu) <= node.cpu
        assert count * exact(trial.gpu) <= node.gpu
        assert count * trial.memory <= node.memory


@given(trials, clusters)
def test_one_more_trial_fits_on_no_machine(trial, there):
    for count, node in zip(fits.placement(trial, there), there.machines, strict=True):
        more = count + 1
        per_device = int(1 / exact(trial.gpu)) if 0 < trial.gpu < 1 else None
        out_of_gpus = more > per_device * node.gpu if per_device else more * exact(trial.gpu) > node.gpu
        assert more * exact(trial.cpu) > node.cpu or out_of_gpus or more * trial.memory > node.memory


@given(trials, clusters)
def test_what_fits_on_no_machine_is_one_line_about_resources(trial, there):
    if fits.fitting(trial, there):
        assert fits.slots(trial, there) == sum(fits.placement(trial, there))
    else:
        with pytest.raises(InputError, match=r"^resources[^\n]*got [^\n]*; must [^\n]*$"):
            fits.slots(trial, there)


@given(trials, clusters, nodes)
def test_a_node_that_joins_never_takes_room_away(trial, there, joins):
    assert fits.fitting(trial, Capacity.of((*there.nodes, joins))) >= fits.fitting(trial, there)


def test_gpus_of_two_machines_are_no_four_on_one():
    two = Capacity.of((Node("a", 16, 2), Node("b", 16, 2)))
    with pytest.raises(
        InputError, match=r"resources\.gpu: got 4 a trial; must be at most 2, the most that one node has"
    ):
        fits.slots(TrialResources(1, 4), two)
    assert fits.slots(TrialResources(1, 2), two) == 2


def test_three_cpus_fit_once_on_each_of_two_machines_of_five():
    assert fits.slots(TrialResources(3, 0), Capacity.of((Node("a", 5, 0), Node("b", 5, 0)))) == 2  # by the sum three


def test_cpus_and_gpus_must_be_on_the_same_machine():
    apart = Capacity.of((Node("a", 64, 0), Node("b", 2, 4)))
    with pytest.raises(
        InputError, match=r"resources: got 8 CPUs and 1 GPUs a trial; must fit on one node, .*2 CPUs with 4"
    ):
        fits.slots(TrialResources(8, 1), apart)


def test_memory_limits_what_runs_side_by_side():
    machine = Capacity.of((Node("a", 16, 0, memory=10.0 * GIB),))
    assert fits.slots(TrialResources(1, 0, 3 * GIB), machine) == 3
    with pytest.raises(InputError, match=r"resources\.memory: got 11\.0 GiB a trial; must be at most 10\.0 GiB"):
        fits.slots(TrialResources(1, 0, 11 * GIB), machine)


# --- measured --------------------------------------------------------------------------------------------------------


@given(footprints, st.floats(0, 4))
def test_those_that_share_a_gpu_need_no_more_than_it_has(footprint, margin):
    count = fits.together_on(footprint, margin)
    assert 1 <= count <= fits.MOST_ON_ONE_GPU
    assert count == 1 or count * fits.with_margin(footprint.gpu, margin) <= footprint.device


@given(st.lists(footprints, min_size=1, max_size=3), st.floats(0, 1), st.integers(1, 4))
def test_what_is_asked_for_fits_on_every_kind_of_gpu(found, margin, devices):
    trial = fits.packed(0.1, found, margin, gpu=None, memory=None)
    assert 0 < trial.gpu <= 1
    side_by_side = fits.on_node(trial, Node("a", 1e6, float(devices)))
    for one in found:
        assert side_by_side == devices or side_by_side / devices * fits.with_margin(one.gpu, margin) <= one.device
        assert trial.memory >= one.memory
    assert side_by_side == devices * min(fits.together_on(one, margin) for one in found), "as Ray counts shares"


def test_without_a_gpu_trials_are_packed_by_memory():
    trial = fits.packed(1, [Footprint(2 * GIB)], 0.15, gpu=None, memory=None)
    assert trial.gpu == 0
    assert fits.slots(trial, Capacity.of((Node("a", 64, 0, memory=10.0 * GIB),))) == 4  # 2.3 GiB each


def test_what_was_asked_for_is_not_measured_away():
    trial = fits.packed(2, [Footprint(GIB, GIB, 80 * GIB)], 0.15, gpu=0.5, memory=3 * GIB)
    assert (trial.gpu, trial.memory) == (0.5, 3 * GIB)


def test_each_kind_of_gpu_is_measured_once_and_machines_without_one_not():
    there = Capacity.of(
        (Node("a", 8, 2, kind="T4"), Node("b", 8, 0), Node("c", 8, 1, kind="H100"), Node("d", 8, 1, kind="T4"))
    )
    assert fits.to_measure(there) == ("T4", "H100")
    assert fits.to_measure(Capacity.of((Node("b", 8, 0),))) == ("cpu",)


@given(st.integers(1, 100), st.integers(0, 100))
def test_a_cluster_that_grows_is_asked_for_one_more_and_never_for_more_than_the_study_wants(asked, fitting):
    assert fits.concurrent("auto", fitting, grows=True) == fitting + 1
    assert fits.concurrent(asked, fitting, grows=True) == min(asked, fitting + 1)
