"""One fault of each kind on a cluster of a head and two worker nodes, each a network namespace of this machine. The
short form of `benchmarks.faults_lost`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.faults.kinds import REPEATED_AT_MOST
from benchmarks.faults.lab import KINDS, Lab, impossible

pytestmark = pytest.mark.slow
SAYS_WHAT_HAPPENED = ("driver_killed", "worker_killed", "node_killed", "head_killed", "checkpoint_corrupted")
SEED = 101


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    possible = tuple(kind for kind in KINDS if impossible(kind) is None)
    if not possible:
        pytest.skip("namespaces and mounts need root")
    with Lab(possible) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_doubled_or_hung_and_one_epoch_is_repeated_at_most(lab: Lab, kind: str) -> None:
    if (why := impossible(kind)) is not None:
        pytest.skip(why)
    told = lab.run(kind, SEED)
    assert (told["lost"], told["doubled"], told["hung"]) == ((), (), ()), told["log"]
    assert told["repeated"] <= REPEATED_AT_MOST.get(kind, 1), told["log"]
    assert not [line for line in told["log"] if "Traceback" in line]
    if kind in SAYS_WHAT_HAPPENED and told["moment"] > 1:
        assert told["said"] >= 1, told["log"]
