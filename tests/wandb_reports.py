"""What the stand-in for Weights & Biases knows of reports: projects, runs by group, views; and whether what it is sent
as a report is one, by the models of wandb-workspaces."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tests import wandb_schema
from tests.wandb_answers import ENTITY, Answers

NOW = "2026-03-01T12:00:00"
PAGE = 40
"""Runs of one answer, at most: a client that asks for more goes on asking."""


@dataclass
class View:
    """A report as the server has it. `spec` is its content, as JSON."""

    id: str
    entity: str
    project: str
    name: str
    display_name: str
    description: str
    spec: str
    saved: int = 1

    @property
    def content(self) -> Any:
        """The spec, read."""
        return json.loads(self.spec)


class Reports:
    """Answers to requests about projects, runs and views; `knows` says of which."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.views: dict[str, View] = {}
        self._made = 0

    def knows(self, document: str) -> bool:
        """Whether a document is answered here: everything on the subjects of the schema but what runs ask."""
        name, _ = wandb_schema.operation(document)
        return name in {*wandb_schema.documents(), "StudyRuns"}

    def answer(self, document: str, variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The answer, and what was wrong with the request."""
        if invalid := wandb_schema.wrong(document):
            return {"errors": [{"message": one} for one in invalid]}, invalid
        return wandb_schema.answered(document, variables, self._root())

    def _root(self) -> dict[str, Any]:
        return {
            "viewer": {"id": "user", "entity": ENTITY, "username": "me"},
            "models": lambda _, **asked: self._projects(asked.get("entityName")),
            "project": lambda _, name, entityName=None: self._project(entityName, name),  # noqa: N803 - its name there
            "view": lambda _, id: self._view(id),  # noqa: A006 - its name there
            "upsertView": lambda _, input: self._upsert(input),  # noqa: A006
        }

    def _projects(self, entity: str | None) -> Any:
        names = sorted({run.project for run in self._answers.runs.values()}) if entity == ENTITY else []
        edges = [{"node": self._project(entity, name)} for name in names]
        return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}

    def _project(self, entity: str | None, name: str) -> Any:
        if entity != ENTITY or name not in {run.project for run in self._answers.runs.values()}:
            return None
        about = {"id": f"id-{name}", "internalId": f"internal-{name}", "name": name, "entityName": entity}
        return {**about, "createdAt": NOW, "isBenchmark": False, "user": None, "runs": self._runs_of(name)}

    def _runs_of(self, project: str) -> Any:
        def runs(_: Any, filters: str = "{}", after: str | None = None, first: int = PAGE, **__: Any) -> Any:
            wanted = json.loads(filters)
            held = [run for run in self._answers.runs.values() if run.project == project]
            names = [run for run in held if all(getattr(run, key) == value for key, value in wanted.items())]
            begin = int(after or 0)
            end = begin + min(first, PAGE)
            edges = [{"node": {"id": run.id, "name": run.id}, "cursor": str(end)} for run in names[begin:end]]
            return {"edges": edges, "pageInfo": {"endCursor": str(end), "hasNextPage": end < len(names)}}

        return runs

    def _view(self, identity: str) -> Any:
        view = self.views.get(identity)
        if view is None:
            return None
        about = {"id": view.id, "type": "runs", "name": view.name, "displayName": view.display_name}
        project = {"id": "project", "name": view.project, "entityName": view.entity}
        times = {"createdAt": NOW, "updatedAt": NOW}
        return {**about, **times, "description": view.description, "project": project, "spec": view.spec}

    def _upsert(self, given: Mapping[str, Any]) -> Any:
        identity = given.get("id")
        if identity is not None and identity not in self.views:
            raise ValueError(f"no view {identity}")
        known = self.views[identity].content["blocks"] if identity is not None else []
        if problem := wrong_spec(given["spec"], known):
            raise ValueError(f"no report: {problem}")
        fields = {
            "entity": given["entityName"], "project": given["projectName"], "name": given["name"],
            "display_name": given["displayName"], "description": given["description"], "spec": given["spec"],
        }  # fmt: skip
        if identity is None:
            self._made += 1
            identity = base64.b64encode(f"View:{self._made}".encode()).decode()
            self.views[identity] = View(identity, **fields)
        else:
            self.views[identity] = View(identity, **fields, saved=self.views[identity].saved + 1)
        return {"view": self._view(identity), "inserted": self.views[identity].saved == 1}


def wrong_spec(spec: str, known: Sequence[Any] = ()) -> str:
    """Why a text is no report by the models of wandb-workspaces; empty where it is one.

    It must be read without loss, and hold no block and no panel that they do not know. Blocks among the `known` ones,
    which people made, are beyond that.
    """
    from wandb_workspaces.reports.v2 import internal

    sent = json.loads(spec)
    sent["blocks"] = [block for block in sent["blocks"] if block not in known]
    try:
        read = internal.Spec.model_validate(sent)
    except ValidationError as error:
        return " ".join(str(error).split())
    if _without_empty_comments(json.loads(read.model_dump_json(by_alias=True, exclude_none=True))) != sent:
        return "it is not the same when it is read and written again"
    for block in read.blocks:
        if isinstance(block, internal.UnknownBlock):
            return f"unknown block {block!r}"
        if isinstance(block, internal.PanelGrid):
            panels = block.metadata.panel_bank_section_config.panels
            if unknown := [one for one in panels if isinstance(one, internal.UnknownPanel)]:
                return f"unknown panel {unknown[0]!r}"
    return ""


def _without_empty_comments(read: Any) -> Any:
    """Reading puts an empty list of comments at each heading that has none."""
    if isinstance(read, list):
        return [_without_empty_comments(one) for one in read]
    if not isinstance(read, dict):
        return read
    return {key: _without_empty_comments(one) for key, one in read.items() if (key, one) != ("inlineComments", [])}
