"""Real Ray sessions, opened and closed in processes of their own; and addresses where nobody answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.connect import session

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]

LIFE_OF_A_SESSION = """
import ray
from cluster.connect import session

with session() as capacity:
    assert ray.is_initialized()
    there = ray.cluster_resources()
    assert (capacity.cpu, capacity.gpu) == (there["CPU"], there.get("GPU", 0.0))
    assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
    with session() as inner:
        assert inner == capacity
    assert ray.is_initialized(), "a session that was open is left open"
assert not ray.is_initialized(), "what was opened is shut down"

try:
    with session():
        raise KeyError("of the study")
except KeyError:
    assert not ray.is_initialized(), "after an error too"
print("DONE")
"""


TOLD_BY_RAY = """
import tune_lora.study
from ray._private.worker import print_to_stdstream

for said in (
    "Raylet is terminated. Termination is unexpected. Last 20 lines of the Raylet logs:\\n    [state-dump] a\\n",
    "The node with node id: 12ab and address: 10.0.0.2 and node name: b has been marked dead because the detector",
    "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot",
    "Workers were killed due to memory pressure",
):
    print_to_stdstream({"lines": [said], "pid": "raylet", "is_err": False}, ignore_prefix=False)
"""


def test_what_ray_dumps_of_a_lost_node_is_not_shown_and_the_rest_is() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", TOLD_BY_RAY], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert "Workers were killed due to memory pressure" in line


def test_a_local_session_is_opened_used_and_closed() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-c", LIFE_OF_A_SESSION],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["DONE"]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def refusal(address: str | None, seconds: int = 60) -> str:
    """What a process without a session is told; it is stopped where it takes longer than `seconds`."""
    program = (
        "import sys\nfrom cluster.connect import session\nfrom tune_lora.errors import InputError\n"
        "try:\n    with session(sys.argv[1] if sys.argv[1:] else None):\n        pass\n"
        "except InputError as error:\n    print(error)\n"
    )
    arguments = [] if address is None else [address]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=seconds
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", "nothing but the message"
    (line,) = ended.stdout.splitlines()
    return line


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_one_line_within_a_minute(scheme: str, closed_port: int) -> None:
    address = f"{scheme}127.0.0.1:{closed_port}"
    assert refusal(address).startswith(f"resources.address: no Ray cluster answers at '{address}': ")


def test_the_address_may_come_from_the_environment(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    assert f"127.0.0.1:{closed_port}" in refusal(None)


@pytest.mark.parametrize("address", ["head-node", "ray://head-node", "head:port", ":6379", "10.0.0.1:99999"])
def test_what_is_no_address_is_told_what_one_is(address: str) -> None:
    assert refusal(address).startswith(f"resources.address: got {address!r}; must be host:port")


def test_a_session_that_was_open_is_left_open(ray_session: None) -> None:
    import ray

    with session("10.255.255.1:1") as capacity:  # no other cluster is asked for while one is open
        assert capacity.cpu >= 1
    assert ray.is_initialized()


WHAT_TRIALS_SEE = """
import os
import ray
from cluster.connect import session

def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")

with session():
    pass
ray.init(num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
print([ray.get(ray.remote(num_cpus=1, num_gpus=share)(seen).remote()) for share in (0, 1)])
"""


def test_a_trial_without_a_gpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    ended = subprocess.run(
        [sys.executable, "-c", WHAT_TRIALS_SEE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "['', '0']"
