"""`tune-lora dashboard`: optuna-dashboard on one study, on loopback, to look at."""

from __future__ import annotations

import importlib.util
import json
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from tune_lora import loopback, sources, store
from tune_lora.dashboard_storage import REFUSED, Looking, Pictures
from tune_lora.errors import InputError
from tune_lora.loopback import HOST

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

FRESH_SECONDS = 2.0
"""How old notes may be while a study runs."""
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def serve(results: Path, ready: Callable[[str], None], port: int | None = None) -> None:
    """Serves the dashboard of a study until ctrl-C or SIGTERM; `ready` gets its address, with a token.

    Raises:
        InputError: optuna-dashboard is not installed, there is no study, or the port cannot be had.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise InputError("optuna-dashboard is not installed; must be: pip install 'tune-lora[dashboard]'")
    folder = sources.results_folder(results)
    study = store.load_study(folder)
    token = loopback.token()
    try:
        server = make_server(HOST, port or 0, lambda *_: [], server_class=_Server, handler_class=_Silent)
    except OSError as error:
        raise InputError(f"--port: {port} cannot be had ({error.strerror}); must be a free port, or left out") from None
    server.set_app(guarded(application(study, folder), token, study._study_id, server.server_port))
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    serving = threading.Thread(target=server.serve_forever, name="dashboard", daemon=True)
    serving.start()
    ready(f"http://{HOST}:{server.server_port}/{token}")
    over.wait()
    server.shutdown()
    server.server_close()


def application(study: optuna.Study, folder: Path) -> WSGIApplication:
    """optuna-dashboard on a study as it stands at each moment, with notes and pictures of its results folder."""
    from optuna_dashboard._app import create_app

    from tune_lora.dashboard_notes import Notes

    fresh = _Fresh(Notes(study, folder).read)
    with warnings.catch_warnings():  # that its interface may change is for this file to mind
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made: WSGIApplication = create_app(
            Looking(study, lambda: fresh()[0]), artifact_store=Pictures(lambda: fresh()[1])
        )
    return made


def guarded(app: WSGIApplication, token: str, study_id: int, port: int) -> WSGIApplication:
    """An application that only looks, and answers only who was told the token: in the address at first, which makes a
    cookie of it, and in that from then on. Other sites' pages get nothing, by whatever name they ask for this host."""
    name = f"tune-lora-{port}"

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if not loopback.is_here(environ.get("HTTP_HOST", "")):
            return _refuse(start, "403 Forbidden", "refused")
        if loopback.is_token(environ["PATH_INFO"].strip("/"), token):
            cookie = f"{name}={token}; Path=/; HttpOnly; SameSite=Strict"
            start("302 Found", [("Location", f"/dashboard/studies/{study_id}"), ("Set-Cookie", cookie), *_HEADERS])
            return []
        if not loopback.is_token(_cookie(environ, name), token):
            return _refuse(start, "403 Forbidden", "open the address that the terminal shows")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start, "403 Forbidden", REFUSED)
        return app(environ, _with_headers(start))

    return answer


class _Fresh:
    """What a function says, asked again when the last answer is some time old."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask, self._lock = ask, threading.Lock()
        self._until = 0.0
        self._held: Any = None

    def __call__(self) -> Any:
        with self._lock:
            if self._held is None or time.monotonic() >= self._until:
                self._held = self._ask()
                self._until = time.monotonic() + FRESH_SECONDS
            return self._held


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Says nothing: addresses hold the token."""


def _with_headers(start: StartResponse) -> Any:
    def begin(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        kept = [one for one in headers if one[0].lower() != "access-control-allow-origin"]
        return start(status, [*kept, *_HEADERS], *error)

    return begin


def _refuse(start: StartResponse, status: str, why: str) -> list[bytes]:
    start(status, [("Content-Type", "application/json"), *_HEADERS])
    return [json.dumps({"reason": why}).encode()]


def _cookie(environ: WSGIEnvironment, name: str) -> str:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""
