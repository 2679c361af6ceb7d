"""The team report at the server of Weights & Biases. The only file that asks it anything but to take runs."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import wandb
import wandb_workspaces.reports.v2 as wr
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb_workspaces._graphql import execute_graphql, get_app_url
from wandb_workspaces.reports.v2 import gql

from trainables.redaction import redacted
from tune_lora.errors import TuneLoraError, one_line
from tune_lora.team_report._blocks import blocks_of
from tune_lora.team_report._notes import with_notes
from tune_lora.team_report._parts import Page

PER_PAGE = 500
"""Runs asked for at once."""
_RUNS = """
    query StudyRuns($entity: String!, $project: String!, $filters: JSONString, $cursor: String, $perPage: Int) {
        project(name: $project, entityName: $entity) {
            runs(filters: $filters, after: $cursor, first: $perPage) {
                edges { node { name } }
                pageInfo { endCursor hasNextPage }
            }
        }
    }
"""
# Not api.runs(): it makes a folder for each run that it lists; only their names are needed.
_NO_ANSWER = "the service process is busy and did not respond in time."
"""How the client's own process puts it; what did not respond is the server."""
_GONE = re.compile(r"(?i)not found|no such|not exist|could not find|deleted")


@dataclass(frozen=True)
class Saved:
    """A report at the server. `is_new` where it was made now."""

    id: str
    url: str
    is_new: bool


class Server:
    """One session with the server; `opened` makes it."""

    def __init__(self, api: Any) -> None:
        self._api = api

    @property
    def site(self) -> str:
        """Address of the web pages."""
        return str(get_app_url(self._api))

    @property
    def entity(self) -> str:
        """The user or team that runs belong to where nothing else is said."""
        return str(self._api.settings["entity"] or self._api.default_entity or "")

    def runs(self, entity: str, project: str, group: str) -> frozenset[str]:
        """The ids of a group's runs; none where there is no such project."""
        found: set[str] = set()
        asked: dict[str, Any] = {"entity": entity, "project": project, "filters": json.dumps({"group": group})}
        asked |= {"cursor": None, "perPage": PER_PAGE}
        while True:
            project_found = execute_graphql(self._api, _RUNS, asked)["project"]
            if project_found is None:
                return frozenset()
            page = project_found["runs"]
            found |= {edge["node"]["name"] for edge in page["edges"]}
            if not page["pageInfo"]["hasNextPage"]:
                return frozenset(found)
            asked["cursor"] = page["pageInfo"]["endCursor"]

    def save(self, page: Page, entity: str, project: str, known: Mapping[str, Any]) -> Saved:
        """Brings the report `known` (`told`) up to date, or makes a new one where that is none or is gone.

        What people wrote into it below the page's notes, and what they said in comments, stays.
        """
        earlier = self._earlier(known)
        made = wr.Report(entity=entity, project=project, title=page.title, description=page.description)
        made.blocks, made.width = blocks_of(page.blocks, entity, project), "fluid"  # tables and panels need the room
        spec = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
        if earlier is not None:
            spec = with_notes(spec, json.loads(earlier["spec"]), page.notes)
        given = {
            "id": None if earlier is None else earlier["id"],
            "name": _random_name() if earlier is None else earlier["name"],
            "entityName": entity, "projectName": project, "displayName": page.title,
            "description": page.description, "type": "runs", "spec": json.dumps(spec),
        }  # fmt: skip
        # Not Report.save(): it would write people's notes anew, of what it knows of their form.
        made.id = execute_graphql(self._api, gql.upsert_view, given)["upsertView"]["view"]["id"]
        return Saved(made.id, made.url, earlier is None)

    def _earlier(self, known: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The report as the server has it; None where it is gone, or is another server's."""
        if not known or urlsplit(str(known["url"])).netloc != urlsplit(self.site).netloc:
            return None
        try:
            answer = execute_graphql(self._api, gql.view_report, {"reportId": known["id"]})
        except WandbApiFailedError as error:
            if not _says_gone(error):
                raise
            return None
        found: Mapping[str, Any] | None = answer["view"]
        return found


def _random_name() -> str:
    """The name of a view, which nobody sees."""
    return secrets.token_hex(6)


@contextmanager
def opened() -> Iterator[Server]:
    """A session with the server as the user's login and environment say.

    Raises:
        TuneLoraError: the server refuses, fails, or does not answer.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # as for runs: for users to allow
    try:
        wandb.setup(wandb.Settings(silent=True, quiet=True, console="off"))
        yield Server(wandb.Api())
    except (wandb.Error, WandbApiFailedError) as error:
        raise TuneLoraError(one_line(f"Weights & Biases: {redacted(_reason(error))}")) from None
    finally:
        wandb.teardown()


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return "the server did not answer in time" if said.endswith(_NO_ANSWER) else said


def _says_gone(error: WandbApiFailedError) -> bool:
    """Whether the server said that there is no such thing, and not that it failed or does not allow it."""
    if error.response is None:
        return False
    # An answer that is an error by GraphQL alone has no status of its own.
    return error.response.http_status == 404 or (error.response.http_status == 0 and bool(_GONE.search(str(error))))


def told(saved: Saved) -> Mapping[str, str]:
    """What is kept with the study."""
    return {"id": saved.id, "url": saved.url}
