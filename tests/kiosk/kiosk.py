"""The kiosk page as a passer-by's hands and eyes: what a test may touch on it, and what it sent."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, Response, expect

from tests.kiosk.service import KioskService

SIZES = {"portrait": (1080, 1920), "landscape": (1920, 1080), "phone": (360, 740)}
WAIT_MS = 20_000
expect.set_options(timeout=WAIT_MS)
# Loss and return of a camera as a browser tells of them, and a count of touches: nothing of the page's own.
_BEFORE_THE_PAGE = """
(() => {
  const devices = navigator.mediaDevices;
  const real = {get: devices.getUserMedia.bind(devices), list: devices.enumerateDevices.bind(devices)};
  const hands = (window.__hands = {taps: 0, streams: [], unplugged: false, violations: []});
  const gone = () => Promise.reject(new DOMException('Requested device not found', 'NotFoundError'));
  devices.getUserMedia = async (wish) => {
    if (hands.unplugged) return gone();
    const stream = await real.get(wish);
    hands.streams.push(stream);
    return stream;
  };
  devices.enumerateDevices = async () => (hands.unplugged ? [] : real.list());
  hands.unplug = () => {
    hands.unplugged = true;
    for (const track of hands.streams.splice(0).flatMap((stream) => stream.getTracks())) {
      track.stop();
      track.dispatchEvent(new Event('ended'));
    }
    devices.dispatchEvent(new Event('devicechange'));
  };
  hands.plug = () => {
    hands.unplugged = false;
    devices.dispatchEvent(new Event('devicechange'));
  };
  addEventListener('pointerdown', () => (hands.taps += 1), true);
  addEventListener('securitypolicyviolation', (event) => {
    hands.violations.push(event.violatedDirective + ' ' + event.blockedURI);
  });
})();
"""

# Compares the camera's film with a picture at the middles of cells, until they are the same but for the edges.
_SEES = """async ([pixels, [height, width], step, patience]) => {
  const want = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
  const stream = window.__hands.streams.at(-1);
  const film = Object.assign(document.createElement('video'), {muted: true, srcObject: stream});
  await film.play();
  const context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  for (const until = performance.now() + patience; ; await new Promise((next) => setTimeout(next, 25))) {
    context.drawImage(film, 0, 0);
    const {data} = context.getImageData(0, 0, width, height);
    let [cells, other] = [0, 0];
    for (let y = step >> 1; y < height; y += step) {
      for (let x = step >> 1; x < width; x += step, cells += 1) {
        const at = 4 * (y * width + x);
        other += [0, 1, 2].some((c) => Math.abs(data[at + c] - want[3 * cells + c]) > 40);
      }
    }
    const share = other / cells;
    if (share > 0.01 && performance.now() < until) continue;
    film.srcObject = null;
    return share;
  }
}"""


class Kiosk:
    """One visitor: a context of its own, so an empty localStorage.

    faults: what the browser complained about, other than `allowed` patterns; the fixture fails a test that has any.
    """

    def __init__(self, browser: Browser, service: KioskService, size: str = "landscape", **context: Any) -> None:
        width, height = SIZES[size]
        given: dict[str, Any] = {"viewport": {"width": width, "height": height}, "locale": "en-GB"}
        given |= {"reduced_motion": "reduce", "accept_downloads": True} | context
        self.service, self.size = service, size
        self.context: BrowserContext = browser.new_context(**given)
        self.context.add_init_script(_BEFORE_THE_PAGE)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.allowed: list[str] = []
        self.sent: list[Request] = []
        self.responses: list[Response] = []
        self._complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._complaints.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.sent.append(request))
        self.page.on("response", lambda response: self.responses.append(response))

    # What a test does

    def open(self, path: str = "/", *states: str) -> Kiosk:
        """Go there, and wait for one of the states: the camera, or its absence, unless named."""
        self.page.goto(self.service.url + path)
        if path.split("#")[0] == "/":
            self.wait_for(*(states or ("camera", "no-camera")))
        return self

    def remember(self, **preferences: object) -> None:
        """Preferences of an earlier visit, by name; before the page is opened."""
        pairs = {f"boothsam.{name}": json.dumps(value) for name, value in preferences.items()}
        self.context.add_init_script(
            f"for (const [name, value] of Object.entries({json.dumps(pairs)})) localStorage.setItem(name, value);"
        )

    def on(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def wait_for(self, *states: str, timeout_ms: float = WAIT_MS) -> None:
        """Until <body data-state> is one of these."""
        pattern = re.compile(f"^({'|'.join(states)})$")
        expect(self.page.locator("body")).to_have_attribute("data-state", pattern, timeout=timeout_ms)

    def wait_for_server(self, *states: str, timeout_ms: float = WAIT_MS) -> None:
        """Until <body data-server> is one of these."""
        pattern = re.compile(f"^({'|'.join(states)})$")
        expect(self.page.locator("body")).to_have_attribute("data-server", pattern, timeout=timeout_ms)

    def load(self, data: bytes, *, wait: bool = True, name: str = "photo.png") -> None:
        """Open a photo as a file; wait: until it can be tapped."""
        kind = "image/jpeg" if data[:2] == b"\xff\xd8" else "image/png"
        self.on("file-input").set_input_files({"name": name, "mimeType": kind, "buffer": data})
        if wait:
            self.wait_for("ready", "masked")

    def shoot(self) -> None:
        """Press the shutter, and wait until the photo can be tapped."""
        self.on("shutter").click()
        self.wait_for("ready", "masked")

    def sees(self, image: npt.NDArray[np.uint8]) -> None:
        """Until the camera shows this picture: it goes on delivering the one before for a while."""
        step = 10
        cells = base64.b64encode(np.ascontiguousarray(image[step // 2 :: step, step // 2 :: step])).decode()
        other = self.page.evaluate(_SEES, [cells, list(image.shape[:2]), step, WAIT_MS])
        assert other <= 0.01, f"{other:.1%} of what the camera shows is something else"

    def photo_size(self) -> tuple[int, int]:
        """(height, width) of the photo that is shown, as the server answered it."""
        return tuple(self.answers("/embeddings")[-1]["size_hw"])  # type: ignore[return-value]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The window's coordinates of a photo's pixel; test_taps.py holds them to markers found on the screen."""
        picture = self.on("stage").locator("img").first
        box = picture.bounding_box()
        assert box is not None
        width = picture.evaluate("(image) => image.naturalWidth")
        scale = box["width"] / width
        return box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale

    def settle(self) -> None:
        """Until the photo stands still in the window."""
        picture = self.on("stage").locator("img").first
        before = None
        while (now := picture.bounding_box()) != before:
            before = now
            self.page.wait_for_timeout(80)

    def wait_for_preview(self) -> None:
        """Until the cut-out of the mask that is shown has come, with its verdict."""
        expect(self.on("preview")).to_have_attribute("data-ready", "true")
        expect(self.on("verdict")).to_have_attribute("data-light", re.compile("green|amber|red"))

    def tap(self, x: float, y: float, *, wait: bool = True) -> dict[str, Any] | None:
        """Tap a photo's pixel with the mouse; wait: for the mask, whose answer is returned."""
        return self.gesture(lambda: self.page.mouse.click(*self.at(x, y)), wait)

    def long_press(self, x: float, y: float) -> dict[str, Any] | None:
        """Hold a photo's pixel for 700 ms."""
        return self.gesture(lambda: self.page.mouse.click(*self.at(x, y), delay=700), True)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> dict[str, Any] | None:
        """Draw a box from one photo's pixel to another."""

        def move() -> None:
            self.page.mouse.move(*self.at(*start))
            self.page.mouse.down()
            self.page.mouse.move(*self.at(*((a + b) / 2 for a, b in zip(start, end, strict=True))), steps=3)
            self.page.mouse.move(*self.at(*end), steps=3)
            self.page.mouse.up()

        return self.gesture(move, True)

    def gesture(self, act: Callable[[], object], wait: bool = True) -> dict[str, Any] | None:
        """Do something that asks for a mask; wait: for its answer, which is returned, and until it is shown."""
        if not wait:
            act()
            return None
        with self.page.expect_response(re.compile(r"/embeddings/[0-9a-f]+/segment$")) as caught:
            act()
        answer: dict[str, Any] = caught.value.json()
        assert caught.value.ok, answer
        self.wait_for("masked")
        return answer

    def scan(self, code: str) -> None:
        """A wedge scanner: keys 2 ms apart wherever the focus is, and Enter.

        The keys carry their own time: how long this machine takes to pass one on must not make a finger of it.
        """
        session = self.context.new_cdp_session(self.page)
        now = time.time()
        for number, key in enumerate([*code, "Enter"]):
            text = "\r" if key == "Enter" else key
            event = {"key": key, "text": text, "timestamp": now + 0.002 * number}
            if key == "Enter":
                event |= {"code": "Enter", "windowsVirtualKeyCode": 13}
            session.send("Input.dispatchKeyEvent", {"type": "keyDown"} | event)
            session.send("Input.dispatchKeyEvent", {"type": "keyUp"} | event | {"text": ""})
        session.detach()

    def download(self, button: str = "download") -> tuple[bytes, str]:
        """The bytes and the suggested name of what a press of the button saves."""
        with self.page.expect_download() as caught:
            self.on(button).click()
        return caught.value.path().read_bytes(), caught.value.suggested_filename

    # What a test sees

    def answers(self, path: str) -> list[dict[str, Any]]:
        """The JSON of all good answers whose path matches (a regular expression for the whole of it)."""
        return [r.json() for r in self.responses if r.ok and re.fullmatch(path, self._path(r.url))]

    def questions(self, path: str) -> list[dict[str, Any]]:
        """The JSON that was sent to such paths."""
        found = [r for r in self.sent if r.method == "POST" and re.fullmatch(path, self._path(r.url))]
        return [request.post_data_json for request in found]

    def segments(self) -> list[dict[str, Any]]:
        """All answers of the segment route."""
        return self.answers(r"/embeddings/[0-9a-f]+/segment")

    def asked(self) -> list[dict[str, Any]]:
        """All questions to the segment route."""
        return self.questions(r"/embeddings/[0-9a-f]+/segment")

    def screenshot(self) -> npt.NDArray[np.uint8]:
        """What is on the screen, (h, w, 3) RGB in CSS pixels."""
        with Image.open(io.BytesIO(self.page.screenshot(scale="css"))) as picture:
            return np.asarray(picture.convert("RGB"))

    def faults(self) -> list[str]:
        """Complaints of the browser, violations of the policy, requests to elsewhere."""
        found = [text for text in self._complaints if not any(re.search(pattern, text) for pattern in self.allowed)]
        if not self.page.is_closed():
            found += self.page.evaluate("window.__hands ? window.__hands.violations : []")
        own = (self.service.url + "/", "blob:", "data:", "about:")
        return found + [f"request to {r.url}" for r in self.sent if not r.url.startswith(own)]

    def allow(self, *patterns: str) -> None:
        """Complaints that this test provokes, as regular expressions."""
        self.allowed += patterns

    def allow_status(self, *statuses: int) -> None:
        """Answers that the browser lists as failed although the page expects them."""
        self.allow(*(rf"Failed to load resource: .*status of {status}\b" for status in statuses))

    def allow_no_connection(self) -> None:
        """The browser lists every try to reach a service that is gone."""
        self.allow(r"net::ERR_(CONNECTION|EMPTY_RESPONSE|SOCKET|INCOMPLETE)")

    def close(self) -> None:
        self.context.close()

    def _path(self, url: str) -> str:
        return "/" + url.split("/", 3)[3].split("?")[0] if url.startswith("http") else url

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            self._complaints.append(f"{message.text} ({message.location.get('url', '')})")
