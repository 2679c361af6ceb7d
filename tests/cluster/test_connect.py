"""What a worker is given by a session."""

import subprocess
import sys

PROGRAM = """
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


def test_a_trial_without_a_gpu_sees_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "['', '0']"
