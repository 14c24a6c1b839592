"""A real Chromium without a window, driven by chromedriver over the W3C WebDriver protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from typing import Any

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # it does not run as root else
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1300,760",
    "--force-device-scale-factor=1",
]


def missing() -> str | None:
    """Why there is no browser here, or None."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: chromium, chromium-driver)"
    return None


class Browser:
    """One window of Chromium; use it with ``with``.

    Args:
        dark: whether pages see ``prefers-color-scheme: dark``.
    """

    def __init__(self, dark: bool = False) -> None:
        self._dark = dark
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Browser:
        self._home = tempfile.mkdtemp(prefix="chromium-")
        self._url = f"http://127.0.0.1:{self._start_driver()}/session"
        try:
            arguments = [*ARGUMENTS, f"--user-data-dir={self._home}/profile"]
            if self._dark:
                arguments.append("--blink-settings=preferredColorScheme=0")
            options = {"args": arguments, "binary": shutil.which("chromium")}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self._post("", {"capabilities": {"alwaysMatch": wanted}})
            self._url += f"/{made['sessionId']}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end()

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        self._post("/url", {"url": url})

    def run(self, script: str) -> Any:
        """Run a script in the page; give what it returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def settled(self, script: str) -> Any:
        """Run a script after the page has drawn itself again."""
        wait = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame("
        body = f"{wait}() => done((() => {{ {script} }})())));"
        return self._post("/execute/async", {"script": body, "args": []})

    def move(self, x: float, y: float) -> None:
        """Put the mouse there."""
        self._act([self._to(x, y)])

    def click(self, x: float, y: float) -> None:
        """Click there."""
        self._act([self._to(x, y), {"type": "pointerDown"}, {"type": "pointerUp"}])

    def drag(self, x: float, y: float, by: int) -> None:
        """Drag from there to the right, or to the left if ``by`` is negative."""
        ways = [self._to(x + by * part / 4, y) for part in range(1, 5)]
        self._act([self._to(x, y), {"type": "pointerDown"}, *ways, {"type": "pointerUp"}])

    def wheel(self, x: float, y: float, by: int, key: str = "") -> None:
        """Turn the wheel there, with a key held."""
        keys = [{"type": "keyDown", "value": key}, {"type": "pause"}] if key else []
        scroll = {"type": "scroll", "x": int(x), "y": int(y), "deltaX": 0, "deltaY": by}
        wheel = [{"type": "pause"}] * (len(keys) // 2) + [scroll]
        actions = [{"type": "wheel", "id": "wheel", "actions": wheel}]
        self._post("/actions", {"actions": [*self._keys(keys[:1]), *actions]})
        self._call("DELETE", "/actions")

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        both = ("keyDown", "keyUp")
        presses = [{"type": kind, "value": key} for key in keys for kind in both]
        self._post("/actions", {"actions": self._keys(presses)})

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def messages(self) -> list[str]:
        """What the console has shown so far: errors above all."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def _keys(self, actions: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [{"type": "key", "id": "keys", "actions": actions}] if actions else []

    def _to(self, x: float, y: float) -> dict[str, Any]:
        return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}

    def _act(self, actions: list[dict[str, Any]]) -> None:
        actions = [{"button": 0, **action} if "x" not in action else action for action in actions]
        mouse = {"type": "pointer", "id": "mouse", "actions": actions}
        self._post("/actions", {"actions": [{**mouse, "parameters": {"pointerType": "mouse"}}]})

    def _start_driver(self) -> int:
        """Start chromedriver; give its port. It takes one of IPv6 that IPv4 may not have free."""
        for _ in range(10):
            self._driver = subprocess.Popen(
                ["chromedriver", "--port=0"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "HOME": self._home},
            )
            assert self._driver.stdout is not None
            for line in self._driver.stdout:
                if found := re.search(r"started successfully on port (\d+)", line):
                    return int(found[1])
            self._driver.stdout.close()
            self._driver.wait()
        raise RuntimeError("chromedriver did not start")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, body, headers, method=method)
        try:
            with self._opener.open(request, timeout=40) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(10)
        assert self._driver.stdout is not None
        self._driver.stdout.close()
        shutil.rmtree(self._home, ignore_errors=True)
