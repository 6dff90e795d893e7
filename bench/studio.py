"""Measures Studio: how soon its lists open in a browser when there is much in them, and what watching costs the room server.

The room server is a process of its own, on SQLite, or with STUDIO_DATABASE=postgresql on a PostgreSQL of its own. It is filled
over REST (messages, rooms) and by files beside one that was stored in a room, since storing each over a socket would take
longer than the measurement. Its 10,000 participants are connections of another process; the 10,000 agents of a host are real,
in a stand-in room. A list *opens* from the click on its link until its first row is drawn, in Debian's Chromium: the median and
the worst of some openings. The server's answer is the request with which the page begins, by a client without a browser, the
median. Scrolling is the time between frames while a list is scrolled from its beginning to the end of what is loaded.

For the cost of watching, a room is kept busy by a sender and a receiver, and the processor time of the server is read before
and after: without watchers, and with ten that do what a browser on the room's page does, which is to read the room's events;
in turns, because this machine does other things, too. Watchers and browser run beside the server and are not counted.
STUDIO_MESSAGES, STUDIO_FILES, STUDIO_ROOMS and STUDIO_AGENTS set other amounts.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Page, async_playwright
from rich.console import Console
from rich.table import Table

from bench.benched_host import benched_host
from bench.processes import raise_file_limit, room_access, room_server, running
from bench.queue_peers.brokers import postgres
from bench.queue_peers.programs.common import cpu_of
from bench.table import Row, show
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol

MESSAGES = int(os.environ.get("STUDIO_MESSAGES", "1000000"))
FILES = int(os.environ.get("STUDIO_FILES", "100000"))
ROOMS = int(os.environ.get("STUDIO_ROOMS", "1000"))
AGENTS = int(os.environ.get("STUDIO_AGENTS", "10000"))
IS_POSTGRESQL = os.environ.get("STUDIO_DATABASE") == "postgresql"
ROOM, CROWD = "large", "crowd"
OPENINGS = 7
ANSWERS = 9
WATCHERS = 10
SECONDS = 12.0
TURNS = 3
FULL_BATCH = 2_000
PARTICIPANTS = Path(__file__).parent / "programs" / "participants.py"
SENDS_PER_SECOND = 50
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_OPEN = """([link, row]) => new Promise((resolve) => {
  const began = performance.now();
  const look = () => document.querySelector(row) ? resolve(performance.now() - began) : requestAnimationFrame(look);
  document.querySelector(link).click();
  requestAnimationFrame(look);
})"""
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


@dataclass(frozen=True)
class Opened:
    """How long a list took to open, in milliseconds: in a browser, and the server's first answer."""

    what: str
    times: Sequence[float]
    answers: Sequence[float]
    scrolling: float | None = None


async def _opening(page: Page, away: str, link: str, row: str) -> list[float]:
    """Milliseconds from the click on a link until a row is there; from another page, so that the list is read anew."""
    times = []
    for _ in range(OPENINGS):
        await page.goto(away)
        target = page.locator(link).first
        await target.wait_for()
        await page.wait_for_timeout(
            2500
        )  # neither what the page before asks for is measured, nor an answer that is kept
        times.append(float(await page.evaluate(_OPEN, [link, row])))
    return times


async def _scrolling(page: Page) -> float:
    """The 95th percentile of the time between frames, in milliseconds."""
    frames = await page.evaluate(_FRAMES, ".virtual")
    return float(statistics.quantiles(frames, n=20)[-1])


async def _timed(ask: Callable[[], Awaitable[Any]], pause: float = 0.2) -> list[float]:
    times = []
    for _ in range(ANSWERS):
        await asyncio.sleep(pause)
        began = time.perf_counter()
        await ask()
        times.append((time.perf_counter() - began) * 1000)
    return times


async def _lists(http: aiohttp.ClientSession, url: str, api_key: str, operator_key: str, host: str) -> list[Opened]:
    found: list[Opened] = []
    studio, room = f"{url}/studio", f"{url}/studio/rooms/{ROOM}"

    def get(path: str, key: str = api_key) -> Callable[[], Awaitable[bytes]]:
        async def ask() -> bytes:
            async with http.get(f"{url}{path}", headers={"Authorization": f"Bearer {key}"}) as answer:
                answer.raise_for_status()
                return await (answer.content.readline() if "events" in path else answer.read())

        return ask

    async with async_playwright() as driver, _member(url, api_key, ROOM) as member:
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS, headless=True)

        async def signed_in(key: str) -> Page:
            context = await browser.new_context(viewport={"width": 1280, "height": 800})
            answer = await context.request.post(f"{url}/studio/api/session", data={"key": key})
            assert answer.ok, await answer.text()
            return await context.new_page()

        async def measure(page: Page, what: str, away: str, link: str, row: str, ask: Any, pause: float = 0.2) -> None:
            times = await _opening(page, away, link, row)
            _say(f"{what}: {', '.join(f'{each:.0f}' for each in times)} ms")
            await page.wait_for_timeout(1000)
            found.append(Opened(what, times, await _timed(ask, pause), await _scrolling(page)))

        page = await signed_in(api_key)
        await measure(
            page,
            f"{ROOMS:,} rooms",
            f"{studio}/keys",
            ".nav a[href='/studio/']",
            "[aria-label=Rooms] tbody tr",
            get("/overview?limit=200"),
            2.2,
        )
        await measure(
            page,
            f"{MESSAGES:,} messages of a queue",
            f"{room}/queues",
            f"a[href='/studio/rooms/{ROOM}/queues/work']",
            ".message-row",
            get(f"/rooms/{ROOM}/queues/work/messages?limit=100"),
        )
        await measure(
            page,
            f"{FILES:,} files in a folder",
            f"{room}/files",
            f"a[href='/studio/rooms/{ROOM}/files/many']",
            ".file-row[href*='/files/many/']",
            lambda: member.storage.list_page(path="many"),
        )
        await measure(
            page,
            f"{AGENTS:,} agents in a room",
            f"{studio}/",
            f"a[href='/studio/rooms/{CROWD}']",
            "[aria-label=Participants] tbody tr",
            get(f"/rooms/{CROWD}/events?changes=1"),
        )
        page = await signed_in(operator_key)
        await measure(
            page,
            f"{AGENTS:,} agents of a host",
            f"{studio}/hosts",
            f"a[href='/studio/hosts/{host}']",
            "[aria-label=Agents] tbody tr",
            get(f"/hosts/{host}/agents?limit=200", operator_key),
        )
        await browser.close()
    return found


async def _busy(room: RoomClient) -> None:
    """Send to a queue and receive from it, at a rate that does not depend on how long that takes."""
    due = time.perf_counter()
    while True:
        await room.queues.send(name="busy", message={"at": time.time()})
        await room.queues.receive(name="busy", create=True, wait=False)
        due += 1 / SENDS_PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def _watch(http: aiohttp.ClientSession, url: str, api_key: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with http.get(f"{url}/rooms/busy/events?changes=1", headers=headers, timeout=timeout) as answer:
        answer.raise_for_status()
        async for _ in answer.content.iter_any():
            pass


async def _watching(http: aiohttp.ClientSession, url: str, api_key: str, pid: int) -> dict[str, list[float]]:
    """The shares of a core that the server takes for a busy room: alone, and with watchers, in turns."""
    figures: dict[str, list[float]] = {"alone": [], "watched": []}
    async with _member(url, api_key, "busy") as room, asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(_busy(room))
        for name, count in TURNS * (("alone", 0), ("watched", WATCHERS)):
            async with AsyncExitStack() as stack:
                for _ in range(count):
                    stack.callback(tasks.create_task(_watch(http, url, api_key)).cancel)
                await asyncio.sleep(2)
                before, began = cpu_of([pid]), time.perf_counter()
                await asyncio.sleep(SECONDS)
                figures[name].append(100 * (cpu_of([pid]) - before) / (time.perf_counter() - began))
        busy.cancel()
    return figures


@asynccontextmanager
async def _full_host() -> AsyncIterator[str]:
    """The URL of a service host with AGENTS agents."""
    async with benched_host("meshhost", sys.executable) as host:
        for first in range(0, AGENTS, FULL_BATCH):
            await host.start_many(
                [f"idle-{number}" for number in range(first, min(first + FULL_BATCH, AGENTS))], tenants=50
            )
        yield host.url


@asynccontextmanager
async def _crowd(url: str, api_key: str) -> AsyncIterator[None]:
    """AGENTS participants in the room CROWD."""
    command = [sys.executable, PARTICIPANTS, url, CROWD, api_key, AGENTS]
    async with running(*command, stdout=PIPE) as process:
        async with asyncio.timeout(600):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"joined\n"
        yield


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}: {what}", file=sys.stderr, flush=True)


async def main() -> None:
    """Measure, and print the tables."""
    operator_key = secrets.token_hex(16)
    raise_file_limit(2 * AGENTS)
    with tempfile.TemporaryDirectory() as folder:
        home, pids = Path(folder), list[int]()
        async with AsyncExitStack() as stack:
            _say("starting agents of a host")
            host_url = await stack.enter_async_context(_full_host())
            config = home / "server.toml"
            config.write_text(f"""[[services]]
url = "{host_url}"
rooms = "nowhere"
paths = [{{ path = "/idle", identity = "idle" }}]
[quota]
max_agents = {AGENTS + 100}
""")
            database = (await stack.enter_async_context(postgres(home))).address["url"] if IS_POSTGRESQL else None
            environment = {"MESHHOST_OPERATOR_KEY": operator_key, "MESHHOST_DATABASE_URL": database}
            server = room_server(home, started=pids.append, config=config, environment=environment)
            url, api_key = await stack.enter_async_context(server)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            _say("watching a busy room")
            watching = await _watching(http, url, api_key, pids[0])
            _say("filling")
            await _fill(http, url, api_key, home)
            await stack.enter_async_context(_crowd(url, api_key))
            _say("opening lists")
            host = hashlib.sha256(host_url.encode()).hexdigest()[:12]
            lists = await _lists(http, url, api_key, operator_key, host)
            # Before all of it ends, which takes a while with so many connections.
            _show(lists, watching)


def _show(lists: Sequence[Opened], watching: Mapping[str, Sequence[float]]) -> None:
    table = Table(title=f"Studio on {'PostgreSQL' if IS_POSTGRESQL else 'SQLite'}: lists, ms", title_justify="left")
    for column in ("", "opens", "worst", "server's answer", "between frames, p95"):
        table.add_column(column, justify="right" if column else "left")
    for each in lists:
        opens, answer = statistics.median(each.times), statistics.median(each.answers)
        figures = (opens, max(each.times), answer, each.scrolling or 0.0)
        table.add_row(each.what, *(f"{figure:,.0f}" for figure in figures))
    Console(width=130).print(table)
    alone, watched = (statistics.median(watching[name]) for name in ("alone", "watched"))
    rows: list[Row] = [
        (f"busy room ({SENDS_PER_SECOND} messages a second), % of a core", alone),
        (f"the same with {WATCHERS} watchers, % of a core", watched),
        ("more, % of a core", watched - alone),
    ]
    show("Studio: watching", ("meshhost",), rows, note=f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    asyncio.run(main())
