"""The page's server: loopback only, and nothing without the token.

Who can reach it and knows the token is the rater. Pages of other sites are kept out by the token, by the name of the
host that they would have to ask for (DNS rebinding), and by having no CORS; what is served runs nothing of others.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from tune_lora import loopback
from tune_lora.errors import InputError
from tune_lora.loopback import HOST
from tune_lora.preferences import CHOICES
from tune_lora.rating._session import Session

_HERE = Path(__file__).parent
_FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_LARGEST_REQUEST = 4096
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(session: Session, port: int | None, ready: Callable[[str], None], after: Callable[[], None]) -> None:
    """Serves the page until the rater is done, or ctrl-C or SIGTERM comes.

    Args:
        session: the rater's.
        port: on loopback; None is a free one.
        ready: gets the page's address, with its token, once it is served.
        after: called in a thread of its own some time after answers were given; never twice at a time.

    Raises:
        InputError: the port cannot be had.
    """
    asyncio.run(_Server(session, after).run(port, ready))


class _Server:
    def __init__(self, session: Session, after: Callable[[], None]) -> None:
        self._session, self._after = session, after
        self._token = loopback.token()
        self._over = asyncio.Event()
        self._busy = asyncio.Lock()
        self._answered = asyncio.Event()

    async def run(self, port: int | None, ready: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._over.set)
        app = web.Application(client_max_size=_LARGEST_REQUEST, middlewares=[self._guarded])
        app.router.add_get("/{token}/picture/{name}", self._picture)
        app.router.add_get("/{token}/state", self._state)
        app.router.add_post("/{token}/{action:judge|undo|more|finish}", self._act)
        app.router.add_get("/{token}/{file:|page.js|page.css}", self._file)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        keeping = asyncio.create_task(self._keep())
        try:
            ready(f"http://{HOST}:{await _listen(runner, port)}/{self._token}/")
            await self._over.wait()
        finally:
            self._over.set()
            self._answered.set()
            await keeping
            await runner.cleanup()

    async def _keep(self) -> None:
        while not self._over.is_set():
            await self._answered.wait()
            self._answered.clear()
            if not self._over.is_set():
                await asyncio.to_thread(self._after)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            answer = await handler(request) if self._may_ask(request) else web.Response(status=403, text="refused\n")
        except web.HTTPException as error:
            answer = web.Response(status=error.status, text=f"{error.reason}\n")
        answer.headers.update(_HEADERS)
        return answer

    def _may_ask(self, request: web.Request) -> bool:
        is_told = loopback.is_token(request.path.split("/")[1], self._token)
        origin = request.headers.get("Origin")
        return is_told and loopback.is_here(request.host) and (origin is None or origin == f"http://{request.host}")

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = _FILES[request.match_info["file"]]
        return web.Response(text=(_HERE / name).read_text("utf-8"), content_type=kind, charset="utf-8")

    async def _state(self, request: web.Request) -> web.Response:
        del request
        async with self._busy:
            return web.json_response(await asyncio.to_thread(self._session.state))

    async def _picture(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._session.picture, request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return web.Response(body=found, content_type="image/png")

    async def _act(self, request: web.Request) -> web.Response:
        said = await _json(request)
        async with self._busy:
            try:
                done = await asyncio.to_thread(self._done, request.match_info["action"], said)
            except OSError as error:
                return web.json_response({"error": f"not saved: {error.strerror}"}, status=507)
            state = await asyncio.to_thread(self._session.state)
        if request.match_info["action"] == "finish":
            self._over.set()
        self._answered.set()
        return web.json_response(state, status=200 if done else 409)

    def _done(self, action: str, said: dict[str, object]) -> bool:
        if action == "judge":
            pair, choice = said.get("pair"), said.get("choice")
            known = next((one for one in CHOICES if one == choice), None)
            if not isinstance(pair, str) or known is None:
                raise web.HTTPBadRequest
            return self._session.judge(pair, known)
        if action == "undo":
            return self._session.undo()
        if action == "more":
            self._session.more()
        return True


async def _json(request: web.Request) -> dict[str, object]:
    if request.content_type != "application/json":  # what a form of another site cannot send unasked
        raise web.HTTPUnsupportedMediaType
    try:
        said = await request.json()
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest from None
    if not isinstance(said, dict):
        raise web.HTTPBadRequest
    return said


async def _listen(runner: web.AppRunner, port: int | None) -> int:
    site = web.TCPSite(runner, HOST, port or 0)
    try:
        await site.start()
    except OSError as error:
        raise InputError(f"--port: {port} cannot be had ({error.strerror}); must be a free port, or left out") from None
    address = runner.addresses[0]
    return int(address[1])
