"""The fields of KubeRay's v1 resources that the manifests use, transcribed as facts, and Kubernetes' own below them.

A field is its type and whether the resource must have it. A type is a Python type, a list of one field table, a table
of named fields, or `Map` (names of the user's own to values of one type).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """One field of a resource."""

    kind: Any
    required: bool = False
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Map:
    """Any names; all values of one kind."""

    values: type


Fields = Mapping[str, Field]

QUANTITY = Map(str)  # "500m" and 8Gi are texts; a bare number is one to people, but not to every reader
RESOURCES: Fields = {"requests": Field(QUANTITY), "limits": Field(QUANTITY)}
SECRET_KEY: Fields = {"name": Field(str, True), "key": Field(str, True), "optional": Field(bool)}
ENVIRONMENT: Fields = {
    "name": Field(str, True),
    "value": Field(str),
    "valueFrom": Field({"secretKeyRef": Field(SECRET_KEY)}),
}
PORT: Fields = {"containerPort": Field(int, True), "name": Field(str)}
MOUNT: Fields = {"name": Field(str, True), "mountPath": Field(str, True)}
CONTAINER: Fields = {
    "name": Field(str, True),
    "image": Field(str, True),
    "resources": Field(RESOURCES),
    "ports": Field([PORT]),
    "env": Field([ENVIRONMENT]),
    "volumeMounts": Field([MOUNT]),
}
VOLUME: Fields = {
    "name": Field(str, True),
    "persistentVolumeClaim": Field({"claimName": Field(str, True)}),
    "emptyDir": Field({}),
}
POD: Fields = {"spec": Field({"containers": Field([CONTAINER], True), "volumes": Field([VOLUME])}, True)}

START = Map(str)  # options of `ray start` without their dashes; CustomResourceDefinition: map[string]string
HEAD: Fields = {"rayStartParams": Field(START), "template": Field(POD, True)}
WORKERS: Fields = {
    "groupName": Field(str, True),
    "replicas": Field(int),
    "minReplicas": Field(int, True),
    "maxReplicas": Field(int, True),
    "rayStartParams": Field(START),
    "template": Field(POD, True),
}
CLUSTER: Fields = {
    "rayVersion": Field(str),
    "authOptions": Field({"mode": Field(str, one_of=("disabled", "token"))}),  # from operator 1.5.1
    "headGroupSpec": Field(HEAD, True),
    "workerGroupSpecs": Field([WORKERS]),
}
JOB: Fields = {
    "entrypoint": Field(str),
    "submissionMode": Field(str, one_of=("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")),
    "shutdownAfterJobFinishes": Field(bool),
    "ttlSecondsAfterFinished": Field(int),
    "backoffLimit": Field(int),
    "rayClusterSpec": Field(CLUSTER),
}
METADATA: Fields = {"name": Field(str), "generateName": Field(str)}
KINDS: Mapping[str, Fields] = {
    kind: {
        "apiVersion": Field(str, True, ("ray.io/v1",)),
        "kind": Field(str, True, (kind,)),
        "metadata": Field(METADATA, True),
        "spec": Field(spec, True),
    }
    for kind, spec in {"RayCluster": CLUSTER, "RayJob": JOB}.items()
}


def mistakes(got: Any, kind: Any, place: str = "") -> list[str]:
    """Where a manifest is not as the fields say, a line each."""
    if isinstance(kind, Map):
        return _map_mistakes(got, kind, place)
    if isinstance(kind, list):
        if not isinstance(got, list):
            return [f"{place}: must be a list"]
        return [line for at, item in enumerate(got) for line in mistakes(item, kind[0], f"{place}[{at}]")]
    if isinstance(kind, Mapping):
        return _table_mistakes(got, kind, place)
    return [] if type(got) is kind else [f"{place}: got {got!r}; must be {kind.__name__}"]


def _map_mistakes(got: Any, kind: Map, place: str) -> list[str]:
    if not isinstance(got, dict):
        return [f"{place}: must be a mapping"]
    return [line for name, value in got.items() for line in mistakes(value, kind.values, f"{place}.{name}")]


def _table_mistakes(got: Any, fields: Fields, place: str) -> list[str]:
    if not isinstance(got, dict):
        return [f"{place}: must be a mapping"]
    found = [f"{place}.{name}: no such field" for name in got if name not in fields]
    found += [f"{place}.{name}: is missing" for name, field in fields.items() if field.required and name not in got]
    for name, field in fields.items():
        if name in got:
            found += mistakes(got[name], field.kind, f"{place}.{name}")
            if field.one_of and got[name] not in field.one_of:
                found.append(f"{place}.{name}: got {got[name]!r}; must be one of {field.one_of}")
    return found
