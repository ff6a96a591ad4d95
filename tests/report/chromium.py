"""A real browser, driven through Chromium's DevTools protocol over a pipe: no driver to install, no port to open."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_QUIET = ["quic", "background-networking", "component-update", "sync", "gpu", "extensions", "default-apps"]


class Chromium:
    """A headless browser; `page` opens a file in a tab of its own."""

    def __init__(self, profile: Path) -> None:
        binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if binary is None:
            pytest.skip("no Chromium here; on Debian: apt-get install chromium")
        # The protocol's pipes are descriptors 3 and 4 there; here they must lie higher, or moving one closes the other.
        ours, theirs = os.pipe(), os.pipe()
        reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1]))
        flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in _QUIET)]
        flags += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{reading} 4>&{writing}', "chromium", binary, *flags],
            pass_fds=(reading, writing),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (reading, writing, ours[0], theirs[1]):
            os.close(end)
        self._out, self._in = os.fdopen(ours[1], "wb", buffering=0), os.fdopen(theirs[0], "rb")
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._out.close()
        self._in.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """One command and its answer; what happens meanwhile is kept in `events`."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        self._out.write(json.dumps(told).encode() + b"\0")
        while (heard := self._hear()).get("id") != self._number:
            self.events.append(heard)
        assert "error" not in heard, heard
        return heard["result"]

    def wait(self, method: str, session: str) -> None:
        """Until something happened in a tab."""
        while not any(each["method"] == method and each.get("sessionId") == session for each in self.events):
            self.events.append(self._hear())

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._in.fileno(), 1 << 16)
            assert more, "Chromium went away"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def page(
        self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True
    ) -> "Page":
        """Load a file and wait until it is there."""
        return Page(self, path, width, height, dark, script)


class Page:
    """A tab that shows a file."""

    def __init__(self, browser: Chromium, path: Path, width: int, height: int, dark: bool, script: bool) -> None:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._browser = browser
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        if not script:
            self._call("Emulation.setScriptExecutionDisabled", value=True)
        self._call("Page.navigate", url=path.as_uri())
        browser.wait("Page.loadEventFired", self._session)

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._browser.call(method, self._session, **parameters)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the middle of the first element that matches, as a mouse does."""
        x, y = self._middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of the first element that matches."""
        x, y = self._middle(selector)
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _middle(self, selector: str) -> tuple[float, float]:
        self.ask(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = self.ask(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def press(self, key: str) -> None:
        """A key of the keyboard, such as Tab, Enter or ArrowRight."""
        text = {"text": "\r"} if key == "Enter" else {}
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40}
        same = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self._call("Input.dispatchKeyEvent", type="keyDown", **same, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **same)

    def write(self, text: str) -> None:
        """Text into what has the focus."""
        self._call("Input.insertText", text=text)

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """What is to be seen, or the whole page, as a PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def complaints(self) -> list[str]:
        """What the console shows: messages, errors, and what the page's policy refused."""
        self.ask("new Promise(done => setTimeout(done, 50))")
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(each["params"]) for each in self._happened() if each["method"] in kinds]

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        sent = [each["params"] for each in self._happened() if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def _happened(self) -> list[dict[str, Any]]:
        return [each for each in self._browser.events if each.get("sessionId") == self._session]
