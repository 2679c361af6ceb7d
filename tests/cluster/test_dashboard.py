"""Addresses at which there is no Ray to submit to: one line each. (Tokens: tests/tune_lora/test_submit.py.)"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from cluster.dashboard import client
from tests.cluster.loopback import free_port
from tune_lora.errors import InputError

pytestmark = pytest.mark.alone


class _Answers(http.server.BaseHTTPRequestHandler):
    answers: tuple[int, bytes] = (200, b"")

    def do_GET(self) -> None:
        code, body = self.answers
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Something that answers with what the test says, and is no Ray of today."""
    handler = type("Handler", (_Answers,), {"answers": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def refusal(address: str) -> str:
    with pytest.raises(InputError) as refused:
        client(address)
    (line,) = str(refused.value).splitlines()
    return line


def version(ray: str) -> bytes:
    return json.dumps({"version": "4", "ray_version": ray, "ray_commit": "x"}).encode()


@pytest.mark.parametrize("stranger", [(200, version("2.9.3"))], indirect=True)
def test_another_ray_is_named(stranger: str) -> None:
    assert "has Ray 2.9.3; must be Ray 2.60" in refusal(stranger)


@pytest.mark.parametrize(
    "stranger", [(200, b"<html>hello</html>"), (404, b"nothing"), (200, b"{}"), (500, b"oh")], indirect=True
)
def test_what_is_no_dashboard_is_told_apart(stranger: str) -> None:
    assert refusal(stranger) == f"--address: what answers at {stranger} is no Ray dashboard"


def test_a_port_where_nobody_listens() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert refusal(address).startswith(f"--address: no Ray dashboard answers at {address}: ")


@pytest.mark.parametrize("address", ["head", "127.0.0.1:8265", "ray://head:10001", "http://", "auto", "http://h:port"])
def test_what_is_no_address_is_told_what_one_is(address: str) -> None:
    assert "must be that of the dashboard, such as http://127.0.0.1:8265" in refusal(address)


@pytest.mark.parametrize("stranger", [(200, version("2.9.3"))], indirect=True)
def test_the_address_that_is_given_is_the_one_that_is_asked(stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://10.255.255.1:8265")
    assert stranger in refusal(stranger)
