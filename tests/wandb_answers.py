"""What the stand-in for Weights & Biases keeps, and what it answers to each operation (`tests.wandb_server`)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENTITY = "team"
HEARTBEAT_SECONDS = 60.0
"""How long a run may say nothing before it counts as crashed. The real server waits some minutes."""

Variables = Mapping[str, Any]


@dataclass
class Run:
    """A run as the server has it."""

    id: str
    name: str = ""
    group: str = ""
    project: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    opened: int = 0
    """How often a process has begun to write it."""
    is_resuming: bool = False
    heard: float = 0.0
    lines_at: list[tuple[float, int]] = field(default_factory=list)
    """When history lines came (monotonic seconds), and how many there were then."""

    @property
    def steps(self) -> list[int]:
        """The step of each history line."""
        return [line["_step"] for line in self.history]

    @property
    def state(self) -> str:
        """As Weights & Biases has it."""
        if self.exit_code is not None:
            return "failed" if self.exit_code else "finished"
        return "running" if time.monotonic() - self.heard < HEARTBEAT_SECONDS else "crashed"

    @property
    def is_silent(self) -> bool:
        """Whether it has not been ended: it becomes crashed by and by."""
        return self.exit_code is None

    def value(self, key: str) -> Any:
        """A value of its configuration."""
        return self.config[key]["value"]


@dataclass
class Artifact:
    """A version of an artifact."""

    id: str
    name: str
    type: str
    run: str
    digest: str
    aliases: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    is_committed: bool = False


class Answers:
    """What the server answers to each operation, and what it keeps of it."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []

    def _address(self, where: str) -> str:
        return f"{self.url}/storage/{where}"

    def viewer(self, _: Variables) -> Any:
        user = {"id": "user", "entity": ENTITY, "username": "me", "email": "me@localhost", "flags": "{}"}
        return {"viewer": {**user, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    def server_features_query(self, _: Variables) -> Any:
        return {"serverInfo": {"features": []}}

    def run_resume_status(self, told: Variables) -> Any:
        run = self.runs.get(told["name"])
        if run is not None:
            run.is_resuming = True
        model = {"id": "project", "name": told["project"], "entity": {"id": "entity", "name": ENTITY}}
        return {"model": {**model, "bucket": None if run is None else self._resumed(run)}}

    def _resumed(self, run: Run) -> Any:
        tail = [json.dumps(line) for line in run.history[-1:]]
        return {
            "id": run.id, "name": run.id, "displayName": run.name, "logLineCount": 0, "eventsLineCount": 0,
            "historyLineCount": len(run.history), "historyTail": json.dumps(tail), "eventsTail": "[]",
            "summaryMetrics": json.dumps(run.summary), "config": json.dumps(run.config), "tags": run.tags,
            "notes": None, "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def upsert_bucket(self, told: Variables) -> Any:
        known = next((run for run in self.runs.values() if run.id in (told.get("name"), told.get("id"))), None)
        run = known or self.runs.setdefault(told["name"], Run(told["name"]))
        fields = {"name": "displayName", "group": "groupName", "project": "project", "job_type": "jobType"}
        for mine, theirs in fields.items():
            if told.get(theirs) is not None:
                setattr(run, mine, told[theirs])
        if told.get("tags") is not None:
            run.tags = list(told["tags"])
        if told.get("config") is not None:
            run.config = json.loads(told["config"])
        if known is None or run.is_resuming:  # it runs, or runs again
            run.exit_code, run.opened, run.is_resuming = None, run.opened + 1, False
        run.heard = time.monotonic()
        project = {"id": "project", "name": run.project, "entity": {"id": "entity", "name": ENTITY}}
        bucket = {"id": run.id, "name": run.id, "displayName": run.name, "description": None, "sweepName": None}
        counts = {"config": json.dumps(run.config), "historyLineCount": len(run.history), "project": project}
        return {"upsertBucket": {"bucket": {**bucket, **counts}, "inserted": known is None}}

    def create_run_files(self, told: Variables) -> Any:
        places = [{"name": name, "uploadUrl": self._address(f"runs/{told['run']}/{name}")} for name in told["files"]]
        return {"createRunFiles": {"runID": told["run"], "uploadHeaders": [], "files": places}}

    def artifact_type(self, told: Variables) -> Any:
        found = next((one for one in self.artifacts if one.name == told["name"].partition(":")[0]), None)
        kind = None if found is None else {"artifactType": {"name": found.type}}
        return {"project": {"artifact": kind}}

    def create_artifact(self, told: Variables) -> Any:
        given = told["input"]
        aliases = [one["alias"] for one in given.get("aliases") or []]
        kept = Artifact(
            f"artifact-{len(self.artifacts)}", given["artifactCollectionName"], given["artifactTypeName"],
            given.get("runName") or "", given["digest"], aliases,
        )  # fmt: skip
        self.artifacts.append(kept)
        sequence = {"id": f"sequence-{kept.name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": kept.id, "state": "PENDING", "artifactSequence": sequence}}}

    def create_artifact_manifest(self, told: Variables) -> Any:
        identity = f"manifest-{told['artifactID']}"
        return {"createArtifactManifest": {"artifactManifest": {"id": identity, "file": self._manifest(identity)}}}

    def update_artifact_manifest(self, told: Variables) -> Any:
        identity = told["artifactManifestID"]
        return {"updateArtifactManifest": {"artifactManifest": {"id": identity, "file": self._manifest(identity)}}}

    def _manifest(self, identity: str) -> Any:
        place = self._address(f"manifests/{identity}")
        return {"id": f"file-{identity}", "name": "m", "displayName": "m", "uploadUrl": place, "uploadHeaders": []}

    def create_artifact_files(self, told: Variables) -> Any:
        edges = []
        for one in told["input"]["artifactFiles"]:
            place = self._address(f"artifacts/{one['artifactID']}/{one['name']}")
            node = {"id": one["name"], "name": one["name"], "displayName": one["name"], "uploadUrl": place}
            extra: dict[str, Any] = {"uploadHeaders": [], "storagePath": None, "uploadMultipartUrls": None}
            edges.append({"node": {**node, **extra, "artifact": {"id": one["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def commit_artifact(self, told: Variables) -> Any:
        kept = next(one for one in self.artifacts if one.id == told["artifactID"])
        kept.is_committed = True
        return {"commitArtifact": {"artifact": {"id": kept.id, "digest": kept.digest}}}
