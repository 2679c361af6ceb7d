"""Names of jobs; and a log that is followed over connections that break, as a server of the same words serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cluster import submit
from cluster.submit import Job, Jobs, name_of, next_attempt
from tests.cluster.loopback import free_port
from tune_lora.errors import TuneLoraError

pytestmark = pytest.mark.alone


@given(st.sets(st.integers(1, 500)))
def test_an_attempt_never_has_the_name_of_another_whichever_were_deleted(attempts: set[int]) -> None:
    left = {name_of("curves-2", "/results", attempt) for attempt in attempts}
    assert name_of("curves-2", "/results", next_attempt(left)) not in left
    assert next_attempt(left) == max(attempts, default=0) + 1


class Breaking:
    """A job whose log cannot be read to its end: of each connection the first `most` say one line more, then break."""

    def __init__(self, lines: int, most: int) -> None:
        self.lines, self.most, self.connections = lines, most, 0

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": "x"})

    async def job(self, _: web.Request) -> web.Response:
        status = "SUCCEEDED" if self.connections > self.lines else "RUNNING"
        details = {"type": "SUBMISSION", "submission_id": "a-1", "status": status, "entrypoint": "x", "metadata": {}}
        return web.json_response(details)

    async def tail(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        told = min(self.connections, self.most, self.lines)
        await socket.send_str("".join(f"line {number}\n" for number in range(told)))
        if self.connections > self.lines:
            await socket.close()
        else:
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        return socket


@contextmanager
def serving(what: Breaking) -> Iterator[str]:
    """The address of it, on loopback."""
    app, port = web.Application(), free_port()
    app.add_routes(
        [
            web.get("/api/version", what.version),
            web.get("/api/jobs/{name}", what.job),
            web.get("/api/jobs/{name}/logs/tail", what.tail),
        ]
    )
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", port).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_AGAIN_SECONDS", 0.0)


JOB = Job("a-1", "a", "/results/a", "RUNNING", 0.0)


def test_a_log_is_followed_over_any_number_of_lost_connections_that_were_good_for_a_while() -> None:
    said: list[str] = []
    with serving(Breaking(lines=25, most=25)) as address:
        ended = Jobs(address).follow(JOB, said.append)
    assert ended.status == "SUCCEEDED"
    assert said == [f"line {number}" for number in range(25)]


def test_connections_that_bring_nothing_new_are_given_up() -> None:
    said: list[str] = []
    with serving(Breaking(lines=1000, most=3)) as address, pytest.raises(TuneLoraError) as lost:
        Jobs(address).follow(JOB, said.append)
    assert said == ["line 0", "line 1", "line 2"]
    (line,) = str(lost.value).splitlines()
    assert line.startswith(f"the connection to {address} is lost") and line.endswith("job a-1 goes on")
