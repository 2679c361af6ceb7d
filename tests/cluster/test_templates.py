"""The cluster templates, held against Ray's own schema and readers, KubeRay's fields, and this project's versions."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kuberay_fields import KINDS, mistakes

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")
RAY = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]  # type: ignore[index]  # it is locked
SCRIPTS = sorted(
    [*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch"), *(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"]
)


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CLUSTER / "kuberay" / name).read_text("utf-8"))
    return found


def cluster_of(name: str) -> dict[str, Any]:
    """The Ray cluster that a manifest describes."""
    spec = manifest(name)["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return found


def pods(name: str) -> list[dict[str, Any]]:
    cluster = cluster_of(name)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def variables(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container["env"]}


# --- Ray's cluster launcher ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text("utf-8"))
    return found


def test_ray_takes_the_launcher_file(launcher: dict[str, Any]) -> None:
    """By Ray's JSON schema and by its own checks of node types."""
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    validate_config(fillout_defaults(copy.deepcopy(launcher)))


def test_ray_refuses_a_wrong_launcher_file(launcher: dict[str, Any]) -> None:
    """The check above is none if anything passes."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(ValidationError):
        validate_config({**launcher, "max_wrkers": 3})


def test_the_launcher_starts_with_a_token_and_a_dashboard_on_loopback(launcher: dict[str, Any]) -> None:
    commands = [*launcher["head_start_ray_commands"], *launcher["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert launcher["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in launcher["setup_commands"]


@pytest.mark.parametrize("group", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_knows_the_options_of_the_launcher(group: str, launcher: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    used = {option for command in launcher[group] for option in re.findall(r"--[a-z-]+", command)}
    assert used and used <= known


def test_no_trial_runs_beside_the_driver(launcher: dict[str, Any]) -> None:
    assert launcher["available_node_types"][launcher["head_node_type"]]["resources"] == {"CPU": 0}
    for name in MANIFESTS:
        assert cluster_of(name)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


# --- KubeRay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_has_all_fields(name: str) -> None:
    found = manifest(name)
    assert mistakes(found, KINDS[found["kind"]]) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "headGroupSpec", "rayStartParams"), {"num-cpus": 0}),
        (("spec", "workerGroupSpecs", 0, "replica"), 2),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "8"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "image"), None),
    ],
)
def test_the_fields_find_mistakes(path: tuple[Any, ...], value: Any) -> None:
    found = copy.deepcopy(manifest("raycluster.yaml"))
    inner: Any = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert len(mistakes(found, KINDS["RayCluster"])) == 1


@pytest.mark.parametrize("name", MANIFESTS)
def test_ray_reads_the_manifest_as_its_operator_does(name: str) -> None:
    """Ray's own reader of the resource, which its autoscaler uses."""
    from ray.autoscaler._private.kuberay import autoscaling_config

    resource = {"metadata": {"name": "tune-lora", "namespace": "default"}, "spec": cluster_of(name)}
    types = autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    head = next(node for group, node in types.items() if group != "gpu")
    assert head["resources"].get("CPU") == 0
    assert types["gpu"]["resources"]["CPU"] == 4
    assert types["gpu"]["resources"]["GPU"] == 1
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, 8)


@pytest.mark.parametrize("name", MANIFESTS)
def test_versions_are_those_of_the_project(name: str) -> None:
    assert cluster_of(name)["rayVersion"] == RAY
    images = {container["image"] for pod in pods(name) for container in pod["containers"]}
    assert len(images) == 1
    assert images.pop().endswith(f":{RAY}-py311")
    dockerfile = (CLUSTER / "kuberay" / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{RAY}-py311-gpu" in dockerfile
    assert f"tune-lora:{RAY}-py311" in dockerfile
    assert 'requires-python = ">=3.11' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", MANIFESTS)
def test_replicas_lie_between_their_bounds(name: str) -> None:
    for group in cluster_of(name)["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_put_together_right(name: str) -> None:
    for pod, role in zip(pods(name), ("ray-head", "ray-worker"), strict=True):
        container = pod["containers"][0]
        assert container["name"] == role, "Ray's container comes first"
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"], "none is put off its node"
        assert not re.search(r"[^-a-z0-9]", "".join(port["name"] for port in container.get("ports", ())))
    ports = {port["name"]: port["containerPort"] for port in pods(name)[0]["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001}


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_container_insists_on_a_token_and_none_holds_it(name: str) -> None:
    for pod in pods(name):
        found = variables(pod["containers"][0])
        assert found["RAY_AUTH_MODE"]["value"] == "token"
        assert found["TUNE_LORA_CACHE"]["value"] == "/cache"
        secret = [entry for key, entry in found.items() if key.endswith(("_TOKEN", "_KEY"))]
        assert secret and all("value" not in entry for entry in secret)
        if manifest(name)["kind"] == "RayCluster":  # of a RayJob the operator gives it to the pods
            reference = found["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
            assert not reference.get("optional"), "without a token no pod may start"
            assert f"create secret generic {reference['name']} --from-literal={reference['key']}=" in (
                (CLUSTER / "kuberay" / name).read_text()
            )
        else:
            assert cluster_of(name)["authOptions"] == {"mode": "token"}


def test_dashboards_are_on_loopback_unless_a_reason_is_given() -> None:
    assert cluster_of("raycluster.yaml")["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    text = (CLUSTER / "kuberay" / "rayjob.yaml").read_text()
    assert re.search(r"# The operator submits [^\n]*\n\s+dashboard-host: 0\.0\.0\.0", text)


def test_a_job_runs_the_driver() -> None:
    assert manifest("rayjob.yaml")["spec"]["entrypoint"].startswith("tune-lora run ")
    assert "name" not in manifest("rayjob.yaml")["metadata"], "each submission is a job of its own"


# --- scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_the_script(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    ended = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no shellcheck here; `make venv` brings it")
    ended = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_no_template_ends_processes_it_did_not_start() -> None:
    """But for the launcher, whose machines are its own."""
    assert SCRIPTS
    for script in SCRIPTS:
        assert not re.search(r"\bray stop\b|\bpkill\b|\bkillall\b", script.read_text()), script


def test_no_template_holds_a_token() -> None:
    for path in sorted(path for path in CLUSTER.rglob("*") if path.suffix in (".yaml", ".sh", ".sbatch")):
        text = path.read_text()
        assert "token" in text, f"{path} starts Ray without one"
        assert not re.search(r"[0-9a-f]{32}", text), path
