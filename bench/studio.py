"""Measures Studio: how soon its lists open in a browser when there is much in them, and what watching costs the room server.

The room server is a process of its own, on SQLite. It is filled over REST (messages, rooms) and by files beside one that was
stored in a room, since storing each over a socket would take longer than the measurement. A list *opens* from the click on its
link until its first row is drawn, in Debian's Chromium; the best of a few openings is shown, because this machine does other
things, too. Scrolling is measured as the time between frames while a list is scrolled from its beginning to its end.

For the cost of watching, a room is kept busy by a sender and a receiver, and the processor time of the server is read before
and after: without watchers, and with ten that do what a browser on the room's page does, which is to read the room's stream of
snapshots. Watchers and browser run beside the server and are not counted. STUDIO_MESSAGES, STUDIO_FILES and STUDIO_ROOMS set
other amounts.
"""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Page, async_playwright

from bench.processes import room_access, room_server
from bench.queue_peers.programs.common import cpu_of
from bench.table import Row, show
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

MESSAGES = int(os.environ.get("STUDIO_MESSAGES", "1000000"))
FILES = int(os.environ.get("STUDIO_FILES", "100000"))
ROOMS = int(os.environ.get("STUDIO_ROOMS", "1000"))
ROOM = "large"
OPENINGS = 5
WATCHERS = 10
SECONDS = 15.0
SENDS_PER_SECOND = 50
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_FRAMES = """async (selector) => {
  const box = document.querySelector(selector);
  const times = [];
  let last = performance.now();
  for (let step = 0; step < 60; step += 1) {
    box.scrollTop = (box.scrollHeight - box.clientHeight) * (step + 1) / 60;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  return times;
}"""


async def _fill(http: aiohttp.ClientSession, url: str, api_key: str, home: Path) -> None:
    """Rooms, messages of a paused queue, and files."""
    headers = {"Authorization": f"Bearer {api_key}"}

    async def ask(method: str, path: str, body: Any = None) -> Any:
        async with http.request(method, f"{url}{path}", json=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    queue = f"/rooms/{ROOM}/queues/work"
    await ask("POST", f"{queue}/messages", {"number": 0})
    await ask("POST", f"{queue}/pause")
    for first in range(1, MESSAGES, 1000):
        await ask("POST", f"{queue}/messages", [{"number": n} for n in range(first, min(first + 1000, MESSAGES))])
    [project] = (await ask("GET", "/accounts/projects"))["projects"]
    for number in range(ROOMS):
        await ask("POST", f"/accounts/projects/{project['id']}/rooms", {"name": f"room-{number}"})
    async with _member(url, api_key, ROOM) as room:
        handle = await room.storage.open(path="many/file.txt", overwrite=True)
        await room.storage.write(handle=handle, data=b"text")
        await room.storage.close(handle=handle)
    [stored] = (home / "data").rglob("many/file.txt")
    for number in range(FILES - 1):
        shutil.copyfile(stored, stored.with_name(f"file-{number}.txt"))


@asynccontextmanager
async def _member(url: str, api_key: str, room: str) -> AsyncIterator[RoomClient]:
    address, token = room_access(url, api_key, room)
    async with RoomClient(protocol=WebSocketClientProtocol(url=address, token=token)) as client:
        yield client


async def _opening(page: Page, away: str, link: str, row: str) -> float:
    """Milliseconds from the click on a link until a row is there; from another page, so that the list is read anew."""
    times = []
    for _ in range(OPENINGS):
        await page.goto(away)
        target = page.locator(link).first
        await target.wait_for()
        await page.wait_for_timeout(700)  # what the page before asks for is not what is measured
        began = time.perf_counter()
        await target.click()
        await page.locator(row).first.wait_for()
        times.append((time.perf_counter() - began) * 1000)
    return min(times)


async def _scrolling(page: Page) -> float:
    """The 95th percentile of the time between frames, in milliseconds."""
    frames = await page.evaluate(_FRAMES, ".virtual")
    return float(statistics.quantiles(frames, n=20)[-1])


async def _lists(url: str, api_key: str) -> dict[str, float]:
    async with async_playwright() as driver:
        path = shutil.which("chromium")
        browser = await driver.chromium.launch(executable_path=path, args=_FLAGS, headless=True)
        context = await browser.new_context(viewport={"width": 1280, "height": 800})
        answer = await context.request.post(f"{url}/studio/api/session", data={"key": api_key})
        assert answer.ok, await answer.text()
        page = await context.new_page()
        studio, room = f"{url}/studio", f"{url}/studio/rooms/{ROOM}"
        figures = {
            "rooms": await _opening(page, f"{studio}/keys", ".nav a[href='/studio/']", "[aria-label=Rooms] tbody tr")
        }
        work = f"a[href='/studio/rooms/{ROOM}/queues/work']"
        figures["messages"] = await _opening(page, f"{room}/queues", work, ".message-row")
        figures["messages_scroll"] = await _scrolling(page)
        dead = f"{room}/queues/work?state=dead"
        began = time.perf_counter()
        await page.goto(dead)
        await page.get_by_text("Nothing found").wait_for()
        figures["messages_none"] = (time.perf_counter() - began) * 1000
        figures["files"] = await _opening(
            page, f"{room}/files", f"a[href='/studio/rooms/{ROOM}/files/many']", ".file-row"
        )
        await page.get_by_text("file-0.txt").wait_for()
        figures["files_scroll"] = await _scrolling(page)
        await browser.close()
    return figures


async def _busy(room: RoomClient) -> None:
    """Send to a queue and receive from it, at a steady rate."""
    while True:
        await room.queues.send(name="busy", message={"at": time.time()})
        await room.queues.receive(name="busy", create=True, wait=False)
        await asyncio.sleep(1 / SENDS_PER_SECOND)


async def _watch(http: aiohttp.ClientSession, url: str, api_key: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with http.get(f"{url}/rooms/busy/events", headers=headers, timeout=timeout) as answer:
        answer.raise_for_status()
        async for _ in answer.content.iter_any():
            pass


async def _watching(http: aiohttp.ClientSession, url: str, api_key: str, pid: int) -> dict[str, float]:
    """The share of a core that the server takes for a busy room: alone, and with watchers."""
    figures = {}
    async with _member(url, api_key, "busy") as room, asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(_busy(room))
        for name, count in (("alone", 0), ("watched", WATCHERS)):
            async with AsyncExitStack() as stack:
                for _ in range(count):
                    stack.callback(tasks.create_task(_watch(http, url, api_key)).cancel)
                await asyncio.sleep(2)
                before, began = cpu_of([pid]), time.perf_counter()
                await asyncio.sleep(SECONDS)
                figures[name] = 100 * (cpu_of([pid]) - before) / (time.perf_counter() - began)
        busy.cancel()
    return figures


async def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        home, pids = Path(folder), list[int]()
        async with room_server(home, started=pids.append) as (url, api_key), aiohttp.ClientSession() as http:
            watching = await _watching(http, url, api_key, pids[0])
            await _fill(http, url, api_key, home)
            figures = await _lists(url, api_key)
    rows: list[Row] = [
        (f"{ROOMS:,} rooms: home opens, ms", figures["rooms"]),
        (f"{MESSAGES:,} messages: queue opens, ms", figures["messages"]),
        ("  scrolling, p95 ms between frames", figures["messages_scroll"]),
        ("  page loaded anew with a filter that finds nothing, ms", figures["messages_none"]),
        (f"{FILES:,} files in a folder: opens, ms", figures["files"]),
        ("  scrolling, p95 ms between frames", figures["files_scroll"]),
        (f"busy room ({SENDS_PER_SECOND} messages a second), % of a core", watching["alone"]),
        (f"the same with {WATCHERS} watchers, % of a core", watching["watched"]),
    ]
    show("Studio", ("meshhost",), rows)


if __name__ == "__main__":
    asyncio.run(main())
