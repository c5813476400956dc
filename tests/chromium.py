"""A page in a real browser: Debian's chromium without a window, spoken to by its DevTools protocol over two pipes.

`CHROMIUM` is None where none is installed. Nothing else is needed: no driver, no web socket, no port.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe")
_PATIENCE_S = 60.0
_KEYS = {"Escape": 27, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Tab": 9}


class Page:
    """One page. `complaints` are errors and messages of its console, and everything that its policy refused."""

    def __init__(self, reading: int, writing: int) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._replies = os.fdopen(reading, "rb")
        self._commands = os.fdopen(writing, "wb")
        self._buffer, self._number, self._session = b"", 0, ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def open(self, file: Path, *, width: int, height: int = 900, dark: bool = False, fragment: str = "") -> None:
        """Returns once the page has loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.send("Page.navigate", url="about:blank")  # else another fragment of the same page would not load it
        self.send("Page.navigate", url=f"{file.resolve().as_uri()}{fragment}")
        self.until("location.protocol === 'file:' && document.readyState === 'complete'")

    def do(self, script: str) -> Any:
        """The value of an expression; of a promise, what it is resolved with."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not self.do(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """As a keyboard does it."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def click(self, selector: str) -> None:
        """As a mouse does it: in the middle of what is there."""
        place = f"(e => {{ e.scrollIntoView({{block: 'center'}}); return e.getBoundingClientRect().toJSON() }})({_one(selector)})"
        box = self.do(place)
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.send("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def type(self, selector: str, text: str) -> None:
        self.do(f"{_one(selector)}.focus()")
        self.send("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """One of the options of a list."""
        self.do(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})({_one(selector)})"
        )

    def screenshot(self, file: Path) -> None:
        """Of what is in view."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """The browser ends when nobody speaks to it."""
        self._commands.close()
        self._replies.close()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._replies.fileno(), 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"):
            self.complaints.append(json.dumps(params)[:500])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:200])


@contextmanager
def browser() -> Iterator[Page]:
    """A browser of its own, ended with the block."""
    assert CHROMIUM is not None
    ends = [*os.pipe(), *os.pipe()]
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]  # the browser's own ends become 3 and 4 below
    for end in ends:
        os.close(end)
    commands_out, commands_in, replies_out, replies_in = high
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        shell = f'exec "$@" 3<&{commands_out} 4>&{replies_in}'
        command = ["bash", "-c", shell, "bash", str(CHROMIUM), *_FLAGS, f"--user-data-dir={home}"]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, pass_fds=(commands_out, replies_in), stdin=quiet, stdout=quiet, stderr=quiet)
        os.close(commands_out)
        os.close(replies_in)
        page = Page(replies_out, commands_in)
        try:
            yield page
        finally:
            page.close()
            process.wait(_PATIENCE_S)


def _one(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"
