"""A real browser: Chromium without a window, driven by chromedriver over WebDriver (W3C), which is JSON over HTTP.

What is asked of it: to load, to click, to say what it shows and what of it does not fit, and to be photographed.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from tests.peers import free_port, wait_until

_CLIPPED = """
const visible = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== 'hidden';
const told = [];
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) told.push('the page is ' + root.scrollWidth + ' wide');
for (const e of document.querySelectorAll('body *')) {
  if (!visible(e) || e.closest('svg') || e.closest('thead')) continue;
  const style = getComputedStyle(e);
  const scrolls = /(auto|scroll)/.test(style.overflowX) || e.closest('.scroll') !== null;
  if (style.display !== 'inline' && e.scrollWidth > e.clientWidth + 1 && !scrolls)
    told.push(e.tagName + '.' + e.className + ' cuts "' + e.textContent.trim().slice(0, 40) + '"');
  const box = e.getBoundingClientRect();
  if (!scrolls && (box.right > root.clientWidth + 1 || box.left < -1))
    told.push(e.tagName + '.' + e.className + ' leaves the page');
}
return told;
"""
_CONTRASTS = """
const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
const linear = (x) => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
const light = (c) => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour[3] > 0) return colour;
  }
  return [255, 255, 255, 1];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
  if (!text || e.getClientRects().length === 0 || e.closest('meter')) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  found.push([(a + .05) / (b + .05), text.slice(0, 40)]);
}
return found;
"""


class Browser:
    """One session.  Raises requests.HTTPError for what the driver refuses."""

    def __init__(self, driver: str, options: Mapping[str, Any]) -> None:
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        answer = requests.post(f"{driver}/session", json=wanted, timeout=60)
        answer.raise_for_status()
        self._session = f"{driver}/session/{answer.json()['value']['sessionId']}"

    def close(self) -> None:
        requests.delete(self._session, timeout=30)

    def look_as(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """The width of the screen in CSS pixels, and which of light and dark its owner prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def load(self, url: str) -> None:
        self._do("url", {"url": url})

    @property
    def url(self) -> str:
        return str(self._ask("url"))

    @property
    def text(self) -> str:
        """All that is shown."""
        return str(self.run("return document.body.innerText"))

    def texts(self, selector: str) -> list[str]:
        """What the elements of a CSS selector show."""
        found = self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)
        return list(found)

    def click(self, selector: str) -> None:
        element = self._do("element", {"using": "css selector", "value": selector})
        self._do(f"element/{next(iter(element.values()))}/click", {})

    def pictures(self) -> dict[str, int]:
        """The natural width of every image that was asked for, by address; 0 for one that did not come."""
        script = "return Object.fromEntries([...document.images].map(i => [i.src, i.complete ? i.naturalWidth : 0]))"
        return dict(self.run(script))

    def clipped(self) -> list[str]:
        """What is cut off, or reaches beyond the page."""
        return list(self.run(_CLIPPED))

    def contrasts(self) -> list[tuple[float, str]]:
        """The contrast of every text with its ground (WCAG 2.1, relative luminance)."""
        return [(float(ratio), str(text)) for ratio, text in self.run(_CONTRASTS)]

    def complaints(self) -> list[str]:
        """What the browser itself objects to: a blocked resource, a failed load, an error."""
        found = self._do("se/log", {"type": "browser"})
        return [str(entry["message"]) for entry in found]

    def photograph(self, path: Path) -> None:
        """The whole page, however long."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self._devtools("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(taken["data"]))

    def run(self, script: str, *arguments: Any) -> Any:
        return self._do("execute/sync", {"script": script, "args": list(arguments)})

    def _devtools(self, command: str, parameters: Mapping[str, Any]) -> Any:
        return self._do("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _do(self, what: str, body: Mapping[str, Any]) -> Any:
        answer = requests.post(f"{self._session}/{what}", json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()["value"]

    def _ask(self, what: str) -> Any:
        answer = requests.get(f"{self._session}/{what}", timeout=60)
        answer.raise_for_status()
        return answer.json()["value"]


@contextlib.contextmanager
def running_browser(chromedriver: Path, chromium: Path, folder: Path) -> Iterator[Browser]:
    """folder: for the browser's profile."""
    port = free_port()
    options = {
        "binary": str(chromium),
        "args": [
            "--headless=new",
            "--no-sandbox",  # tests may run as root, in a container without user namespaces
            "--disable-dev-shm-usage",
            "--disable-gpu",
            f"--user-data-dir={folder}",
        ],
    }
    driver = subprocess.Popen(
        [str(chromedriver), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                return bool(requests.get(f"{address}/status", timeout=5).json()["value"]["ready"])
            return False

        wait_until(answers, "chromedriver answers", 30)
        browser = Browser(address, options)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(20)
