"""A stand-in for the server of Weights & Biases on the loopback interface, for tests of the real client.

It keeps runs, their history lines, their files and artifacts as the client sends them, and checks each request: who
asks, that it is GraphQL, that every variable is of the type which the client's own operation declares, that history has
no gap and no step twice. Requests about reports are checked against a schema and answered through it
(`tests.wandb_schema`), and what is saved as a report must be one (`tests.wandb_reports`). What is wrong stands in
`mistakes`, which a test asserts to be empty. It answers after `delay` seconds, or with `status` where that is not 200,
and not at all while `gate` is not set. Operations are methods of `Answers`, called as GraphQL calls them; a test that
needs others adds them with `WandbServer.on`.

    with WandbServer() as server:
        environment = server.environment          # for the client's process
        ...
        assert server.runs["abc"].steps == [1, 2, 3] and not server.mistakes
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests import wandb_schema
from tests.wandb_answers import Answers, Run, Variables
from tests.wandb_reports import Reports

KEY = "0123456789abcdef" * 2 + "01234567"


class WandbServer:
    """The server; a context manager. `delay` and `status` may be changed while it runs."""

    def __init__(self, *, delay: float = 0.0, status: int = 200) -> None:
        self.delay, self.status = delay, status
        self._answers = Answers()
        self.runs, self.artifacts = self._answers.runs, self._answers.artifacts
        self._reports = Reports(self._answers)
        self.views = self._reports.views
        self.operations: list[str] = []
        self.mistakes: list[str] = []
        self.gate = threading.Event()
        """While it is not set, nothing is answered."""
        self.gate.set()
        self._lock = threading.Lock()
        self._failing: dict[str, str] = {}
        self._more: dict[str, Callable[[Variables], Any]] = {}
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self.url = self._answers.url = f"http://127.0.0.1:{self._http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process must have in its environment."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online", "WANDB_SILENT": "true"}

    def on(self, operation: str, answer: Callable[[Variables], Any]) -> None:
        """Answers an operation, by the name that the client gives it, with ``answer(variables)``."""
        self._more[operation] = answer

    def fail(self, operation: str, message: str) -> None:
        """Answers an operation with an error, as GraphQL has them."""
        self._failing[operation] = message

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()

    # --- requests ----------------------------------------------------------------------------------------------------

    def _take_time(self) -> None:
        self.gate.wait()
        time.sleep(self.delay)

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        """Answers a POST: status, and what is sent back as JSON."""
        self._take_time()
        if self.status != 200:
            return self.status, {"errors": [{"message": "the test wants this"}]}
        if path.startswith("/sdk/otel"):  # the client's own telemetry
            return 200, {}
        if headers.get("Authorization") != f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}":
            self.mistakes.append(f"{path}: not authorized")
            return 401, {"errors": [{"message": "not authorized"}]}
        with self._lock:
            if path == "/graphql":
                return self._graphql(json.loads(body))
            if (found := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)) is not None:
                return 200, self._stream(found[3], json.loads(body))
        self.mistakes.append(f"{path}: no such place")
        return 404, {}

    def put(self, path: str, body: bytes) -> int:
        """Takes a file."""
        self._take_time()
        if self.status != 200:
            return self.status
        _, _, kind, owner, name = [*unquote(path).split("/", 4), ""][:5]
        with self._lock:
            if kind == "runs":
                self.runs[owner].files[name] = body
            elif kind == "artifacts":
                next(one for one in self.artifacts if one.id == owner).files[name] = body
        return 200

    def _graphql(self, asked: Mapping[str, Any]) -> tuple[int, Any]:
        query, variables = asked["query"], asked.get("variables") or {}
        operation, _ = wandb_schema.operation(query)
        self.operations.append(operation)
        if operation in self._failing:
            return 200, {"errors": [{"message": self._failing[operation]}], "data": None}
        if operation not in self._more and self._reports.knows(query):
            answer, mistakes = self._reports.answer(query, variables)
            self.mistakes += [f"{operation}: {wrong}" for wrong in mistakes]
            return 200, answer
        self.mistakes += [f"{operation}: {wrong}" for wrong in _wrong_variables(query, variables)]
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        answer = self._more.get(operation) or getattr(self._answers, method, None)
        if answer is None:
            self.mistakes.append(f"{operation}: not known here: {' '.join(query.split())}")
            return 400, {"errors": [{"message": f"{operation} is not known"}]}
        return 200, {"data": answer(variables)}

    def _stream(self, name: str, told: Mapping[str, Any]) -> Any:
        run = self.runs.get(name)
        if run is None:
            self.mistakes.append(f"file_stream: no run {name}")
            return {}
        run.heard = time.monotonic()
        for file, chunk in (told.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk["content"] if file.endswith((".jsonl", ".json"))]
            if file == "wandb-history.jsonl":
                self._take_history(run, chunk["offset"], lines)
            elif file == "wandb-summary.json":
                run.summary = {key: value for line in lines for key, value in line.items()}
        if told.get("complete"):
            run.exit_code = told.get("exitcode", 0)
        return {"exitcode": None, "limits": {}}

    def _take_history(self, run: Run, offset: int, lines: list[dict[str, Any]]) -> None:
        if offset > len(run.history):
            self.mistakes.append(f"{run.name}: line {offset} after {len(run.history)} lines")
        run.history[offset : offset + len(lines)] = lines
        run.lines_at.append((time.monotonic(), len(run.history)))
        if any(after <= before for before, after in zip(run.steps, run.steps[1:], strict=False)):
            self.mistakes.append(f"{run.name}: steps {run.steps}")


_DECLARED = re.compile(r"\$(\w+)\s*:\s*(\[?)(\w+)!?\]?(!?)")
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "String": str,
    "ID": str,
    "JSONString": str,
    "Int": int,
    "Int64": (int, str),
    "Float": (int, float),
    "Boolean": bool,
}


def _wrong_variables(query: str, variables: Variables) -> list[str]:
    """What of the variables is not as the operation itself declares them."""
    head = query[: query.index("{")] if "{" in query else query
    declared = {name: (bool(many), kind, bool(must)) for name, many, kind, must in _DECLARED.findall(head)}
    wrong = [f"${name} is not declared" for name in variables if name not in declared]
    for name, (many, kind, must) in declared.items():
        value = variables.get(name)
        if value is None:
            wrong += [f"${name} must be given"] if must else []
            continue
        if many and not isinstance(value, list):
            wrong.append(f"${name} must be a list")
            continue
        wrong += [f"${name} must be of {kind}: {one!r}" for one in (value if many else [value]) if not _is(one, kind)]
    return wrong


def _is(value: Any, kind: str) -> bool:
    if kind == "JSONString":
        try:
            json.loads(value)
        except (TypeError, ValueError):
            return False
    return isinstance(value, _KINDS.get(kind, object))


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no mistake; the others are noted where they happen."""


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send(self, status: int, told: Any) -> None:
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            body = self._body()
            try:
                answer = server.post(urlsplit(self.path).path, dict(self.headers), body)
            except Exception as error:
                server.mistakes.append(f"{self.path}: {type(error).__name__}: {error}: {body[:2000]!r}")
                raise
            self._send(*answer)

        def do_PUT(self) -> None:
            self._send(server.put(urlsplit(self.path).path, self._body()), {})

    return Handler
