"""A real headless Chromium, driven by its DevTools protocol; a test is skipped where there is none.

with chromium.started() as browser:
    page = browser.page()
    page.open(path.as_uri())
    assert page.js("document.title") == "..."
    page.screenshot(folder / "page.png")
    assert page.errors == []
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

DEADLINE_SECONDS = 90.0
"""For everything that is waited for; machines that run tests are busy."""
PHONE = {"width": 390, "height": 844, "scale": 2, "mobile": True}
_LIBC, _PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_SWITCHES = (
    *("--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--metrics-recording-only",
    ),
    *("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--password-store=basic"),
    # The host resolver would ask a name server for the browser's own services, and there may be none.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)
_KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
}


def program() -> str | None:
    """The browser; ``CHROMIUM`` names another."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _PROGRAMS)), None)


def skip_where_missing() -> None:
    """Skips the test that calls it where there is no Chromium."""
    if program() is None:
        pytest.skip("Chromium is not installed; apt-get install chromium")


@contextmanager
def started(*switches: str) -> Iterator[Browser]:
    """A browser of its own, with an empty profile; it and its pages are gone after the block.

    Skips the test where there is no Chromium.
    """
    skip_where_missing()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = _process(Path(profile), switches)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="chromium", daemon=True)
        thread.start()
        browser = Browser(_port(Path(profile), process), loop)
        try:
            yield browser
        finally:
            browser.close()
            loop.call_soon_threadsafe(loop.stop)
            thread.join(DEADLINE_SECONDS)
            loop.close()
            _end(process)


class Browser:
    """A running browser. `port` is that of its DevTools."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port, self._loop = port, loop
        self._pages: list[Page] = []

    def page(self) -> Page:
        """A new tab."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
            made = json.load(answer)
        page = Page(made["webSocketDebuggerUrl"], self._loop)
        self._pages.append(page)
        return page

    def close(self) -> None:
        """Closes all tabs."""
        for page in self._pages:
            page.close()
        self._pages.clear()


class Page:
    """One tab. `errors` are what its console said as errors or warnings, exceptions that nobody caught, and requests
    that failed, since the tab was made or `errors` was last cleared."""

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.errors: list[str] = []
        self._loop, self._numbers = loop, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = threading.Event()
        self._wait(self._connect(address))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    # --- looking -----------------------------------------------------------------------------------------------------

    def open(self, address: str) -> None:
        """Goes to an address (of a file: ``path.as_uri()``) and waits until it is loaded."""
        self._loaded.clear()
        told = self.send("Page.navigate", url=address)
        if "errorText" in told:
            raise AssertionError(f"{address}: {told['errorText']}")
        self._wait_loaded(address)

    def reload(self) -> None:
        """Loads the page again."""
        self._loaded.clear()
        self.send("Page.reload")
        self._wait_loaded("the page")

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression as plain data; of a promise what it comes to.

        Raises:
            AssertionError: it threw.
        """
        told = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return told["result"].get("value")

    def wait_for(self, expression: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """Waits until a JavaScript expression is truthy; returns it."""
        until = time.monotonic() + seconds
        while not (found := self.js(expression)):
            assert time.monotonic() < until, f"{expression} is {found!r} after {seconds:.0f} s; errors: {self.errors}"
            time.sleep(0.05)
        return found

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Writes what is seen as PNG; `whole` is the page to its end."""
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, fromSurface=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(told["data"]))
        return path

    # --- the screen --------------------------------------------------------------------------------------------------

    def screen(self, width: int = 1280, height: int = 800, *, scale: float = 1, mobile: bool = False) -> None:
        """The size of the window in CSS pixels; a phone is ``page.screen(**chromium.PHONE)``."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def dark(self, on: bool = True) -> None:
        """Whether the user likes dark pages."""
        wanted = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.send("Emulation.setEmulatedMedia", features=wanted)

    def offline(self, on: bool = True) -> None:
        """Takes the network away."""
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.send("Network.emulateNetworkConditions", offline=on, **speed)

    # --- acting ------------------------------------------------------------------------------------------------------

    def click(self, selector: str) -> None:
        """Presses and releases the mouse in the middle of the first element that a CSS selector means."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.js(f"{element}.getBoundingClientRect().toJSON()")
        place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str, *, held: int = 0) -> None:
        """Presses and releases a key, such as ``ArrowLeft`` or ``u``; `held` is how often it repeats before."""
        code = _KEYS.get(key, ord(key.upper()[0]))
        told: dict[str, Any] = {
            "key": key,
            "windowsVirtualKeyCode": code,
            "code": key if key in _KEYS else f"Key{key.upper()}",
        }
        if len(key) == 1:
            told["text"] = key
        for repeat in range(held + 1):
            self.send("Input.dispatchKeyEvent", type="keyDown", autoRepeat=repeat > 0, **told)
        told.pop("text", None)
        self.send("Input.dispatchKeyEvent", type="keyUp", **told)

    # --- the protocol ------------------------------------------------------------------------------------------------

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        told: dict[str, Any] = self._wait(self._ask(method, parameters))
        if "error" in told:
            raise AssertionError(f"{method}: {told['error']['message']}")
        return dict(told.get("result", {}))

    def close(self) -> None:
        """Closes the tab."""
        with suppress(AssertionError, aiohttp.ClientError, ConnectionError):
            self.send("Page.close")
        self._wait(self._disconnect())

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_SECONDS)

    def _wait_loaded(self, what: str) -> None:
        assert self._loaded.wait(DEADLINE_SECONDS), f"{what} is not loaded after {DEADLINE_SECONDS:.0f} s"

    async def _connect(self, address: str) -> None:
        self._client = aiohttp.ClientSession()
        self._socket = await self._client.ws_connect(address, max_msg_size=0)
        self._reading = asyncio.create_task(self._read())

    async def _disconnect(self) -> None:
        self._reading.cancel()
        await self._socket.close()
        await self._client.close()

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = self._loop.create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])
        for waiting in self._answers.values():  # the tab is gone
            waiting.set_result({"result": {}})

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            said = [str(one.get("value", one.get("description", ""))) for one in told["args"]]
            self.errors.append(f"console.{told['type']}: {' '.join(said)}")
        elif event == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())


def end_with_parent() -> None:
    """As ``preexec_fn`` of a child process: it is killed when this program ends, however that is."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _process(profile: Path, switches: tuple[str, ...]) -> subprocess.Popen[bytes]:
    found = program()
    assert found is not None
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    given = [
        found,
        *_SWITCHES,
        *as_root,
        *switches,
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    silent = subprocess.DEVNULL
    return subprocess.Popen(
        given,
        stdin=silent,
        stdout=silent,
        stderr=silent,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one call into libc, which takes no lock
    )


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    file, until = profile / "DevToolsActivePort", time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(f"Chromium ended with {process.returncode} as it started")
        if file.is_file() and len(lines := file.read_text().splitlines()) > 1:
            return int(lines[0])
        time.sleep(0.05)
    _end(process)
    raise AssertionError(f"Chromium does not answer after {DEADLINE_SECONDS:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # its own group, so that nobody else's browser is touched
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(DEADLINE_SECONDS)
