"""The way to a Ray cluster's dashboard: every failure on it is one line that says what to do."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cluster import job as on_cluster
from tune_lora.errors import InputError, TuneLoraError

_ANSWER_SECONDS = 10.0
_LOGGERS = (
    *("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"),
    "ray._private.runtime_env.packaging",
)
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def client(address: str) -> JobSubmissionClient:
    """A client of the jobs at an address.

    Raises:
        InputError: nothing answers there, it is no Ray dashboard, it lets nobody in with this token, or it is another
            Ray than this one.
    """
    _check_address(address)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with explained(address), _as_given():
        found = JobSubmissionClient(address)
        there = str(found._do_request("GET", "/api/version").json()["ray_version"])
    if there.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise InputError(
            f"--address: the cluster at {address} has Ray {there}; must be Ray {ray.__version__}, as it is here"
        )
    return found


@contextmanager
def explained(address: str, taken: str = "") -> Iterator[None]:
    """Says in one line what went wrong in the block; `taken` is what it means that a job of the name exists."""
    try:
        yield
    except AuthenticationError:
        raise InputError(f"--address: {address} {_let_in()}") from None
    except (ConnectionError, requests.ConnectionError) as error:
        raise InputError(f"--address: no Ray dashboard answers at {address}: {first_line(error)}") from None
    except (ValueError, KeyError, requests.RequestException):
        raise InputError(f"--address: what answers at {address} is no Ray dashboard") from None
    except RuntimeError as error:
        if taken and "already" in str(error):
            raise InputError(taken) from None
        if "Version check" in str(error):
            raise InputError(f"--address: what answers at {address} is no Ray dashboard") from None
        raise TuneLoraError(f"the cluster at {address} refused: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise InputError(f"--address: got {address!r}; must be that of the dashboard, such as http://127.0.0.1:8265")
    try:
        socket.create_connection((parts.hostname, port), _ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--address: no Ray dashboard answers at {address}: {error.strerror or error} (is there a tunnel to it?)"
        ) from None


@contextmanager
def _as_given() -> Iterator[None]:
    """Ray would take another address from the environment in place of the one that it is given."""
    held = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _let_in() -> str:
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "asks for a token; must be sent one: export RAY_AUTH_MODE=token"
    if on_cluster.token() is None:
        return "asks for a token; must be in ~/.ray/auth_token, or a file that RAY_AUTH_TOKEN_PATH names"
    return "does not know the token; must be the cluster's own (~/.ray/auth_token, RAY_AUTH_TOKEN_PATH)"
