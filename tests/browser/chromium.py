"""A headless Chromium for tests, driven by the DevTools protocol over two pipes, so that no further package is needed.

`install` fetches Debian's package. The browser notes each request of a page and each message in its console, so that a
test can check that there are none.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# These options also keep the browser itself from sending requests to any host.
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", "--disable-dev-shm-usage",
)  # fmt: skip


def program() -> str | None:
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


def hindrance() -> str:
    """Return the reason why no browser can start on this machine, or an empty text if a browser can start."""
    return "" if program() else "no Chromium is installed here (make test fetches Debian's where it may)"


def install() -> None:
    """Install Debian's package if the machine has no browser, the user is root and apt-get exists. Do nothing otherwise."""
    if program() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    }
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["apt-get", *words], timeout=400, check=False, **quiet)


class Browser:
    """A running browser, used as a `with` block. `folder` holds its profile."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "Browser":
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # The browser reads its orders from descriptor 3 and answers on 4. bash puts the pipes there; sh knows single digits only.
        line = f'exec "$@" 3<&{reads} 4>&{writes}'
        words = [program(), *FLAGS, f"--user-data-dir={self.folder}", "about:blank"]
        with (self.folder / "chromium.log").open("w") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", line, "bash", *words], pass_fds=(reads, writes), stdout=log, stderr=log
            )
        os.close(reads)
        os.close(writes)
        self._numbers, self._buffer, self.events = itertools.count(1), b"", []
        return self

    def __exit__(self, *_) -> None:
        os.close(self._to)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def _message(self, deadline: float) -> dict:
        """Return the next message. Raise TimeoutError if no message comes."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 2**20)
            if not part:
                raise EOFError(f"the browser ended: {(self.folder / 'chromium.log').read_text()[-2000:]}")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def ask(self, method: str, session: str | None = None, seconds: float = 60, **parameters) -> dict:
        """Return the answer to an order. Append all other messages to `events`."""
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(order).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            message = self._message(deadline)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def page(self, width: int = 1280, height: int = 1000, **media: str) -> "Page":
        """Return a new, empty page; `media`: features such as prefers_color_scheme="dark"."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.ask(f"{domain}.enable")
        page.ask(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        page.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        page.ask("Emulation.setEmulatedMedia", features=features)
        return page


class Page:
    """A page of a browser without a network."""

    def __init__(self, browser: Browser, session: str):
        self.browser, self.session = browser, session

    def ask(self, method: str, **parameters) -> dict:
        return self.browser.ask(method, self.session, **parameters)

    def events(self, method: str) -> list[dict]:
        """Return the parameters of the events of one kind so far."""
        events = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [event["params"] for event in events if event["method"] == method]

    def open(self, path: Path) -> None:
        """Go to a file and wait until it has loaded."""
        self.ask("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str):
        """Return the value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.05)

    def box(self, selector: str) -> dict:
        """Scroll an element into view; return its place on the screen: x, y, width, height."""
        return self.run(f"""(() => {{ const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center", behavior: "instant"}}); return element.getBoundingClientRect().toJSON(); }})()""")

    def mouse(self, kind: str, x: float, y: float) -> None:
        pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Press and let go at a place in an element, `across` of its width from its left edge."""
        box = self.box(selector)
        x, y = box["x"] + across * box["width"], box["y"] + box["height"] / 2
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def key(self, key: str, code: int = 0) -> None:
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def screenshot(self) -> np.ndarray:
        """Return the visible part of the page, (H, W, 3)."""
        picture = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        with Image.open(io.BytesIO(picture)) as image:
            return np.asarray(image.convert("RGB"))

    def part(self, selector: str) -> np.ndarray:
        """Return the pixels of an element on the screen, (H, W, 3)."""
        box = self.box(selector)
        top, left = round(box["y"]), round(box["x"])
        return self.screenshot()[top : top + round(box["height"]), left : left + round(box["width"])]
