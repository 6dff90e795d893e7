"""`make screenshots`: pictures of every page of Studio, in both themes and both widths, from a real server, host and browser.

A room server is started in a folder of its own, `studio_program.py` runs in one of its rooms, messages, files, a schedule and a
hook are made over REST, and Debian's Chromium opens page after page. All pictures are written to `build/studio`; those that the
README and the pages of the documentation show (`SHOWN`) also to `docs/images/studio`. It needs Chromium and playwright, as the
tests with a browser do (`make system-packages`).
"""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

ROOT = Path(__file__).parents[2]
ALL = ROOT / "build" / "studio"
KEPT = ROOT / "docs" / "images" / "studio"
PROGRAM = Path(__file__).parent / "studio_program.py"
ROOM = "orders"
OPERATOR_KEY = "operator-of-the-pictures-0123456789abcdef"
THEMES = ("light", "dark")
SIZES = {"wide": (1280, 800), "narrow": (390, 800)}
# What stands in the documentation: name, theme, size.
SHOWN = [
    ("home", "light", "wide"),
    ("queue", "dark", "wide"),
    ("message", "light", "wide"),
    ("files", "light", "wide"),
    ("chat", "light", "wide"),
    ("room", "light", "wide"),
    ("host", "dark", "wide"),
    ("home", "dark", "narrow"),
    ("chat", "light", "narrow"),
]
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
_REPORT = b"# Week 48\n\nThree orders wait for **payment**.\n\n- 1041, Ada\n- 1044, Grace\n- 1052, Alan\n"


def _command(environment: Mapping[str, str]) -> list[str]:
    """The `meshhost` of this interpreter, with these variables beside those that there are."""
    return [
        "env",
        *(f"{name}={value}" for name, value in environment.items()),
        sys.executable,
        "-m",
        "meshhost.cli.main",
    ]


@asynccontextmanager
async def running(*arguments: str, ready: str, environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Run `meshhost` until the block ends; entered when a line of its output contains `ready`. Yields that line."""
    process = await asyncio.create_subprocess_exec(
        *_command(environment), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(60):
        while ready not in (line := (await process.stdout.readline()).decode()):
            if not line:
                sys.exit(f"meshhost {' '.join(arguments)} ended:\n{''.join(lines)}")
            lines.append(line)
    rest = asyncio.ensure_future(process.stdout.read())  # noqa: TID251 - nothing to supervise: it ends with the process
    try:
        yield line
    finally:
        process.send_signal(signal.SIGTERM)
        await rest
        await process.wait()


class Server:
    """REST of the server whose pictures are taken."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str) -> None:
        self._http = http
        self._url = url
        self._key = key

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
        """The JSON of an answer. Raises for one that refuses."""
        headers = {"Authorization": f"Bearer {key or self._key}"}
        async with self._http.request(method, f"{self._url}{path}", json=body, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json() if answer.content_type == "application/json" else None

    async def fill(self) -> str:
        """Make what the pictures show; return the id of a message that died."""
        queues = f"/rooms/{ROOM}/queues"
        jobs = [{"instructions": f"save a poem to order-{n}.txt", "name": f"order-{n}"} for n in range(1040, 1064)]
        await self.ask("POST", f"{queues}/jobs/messages", jobs)
        await self.ask("PATCH", f"{queues}/jobs/settings", {"max_attempts": 3, "retry_seconds": 0.2})
        dead = await self.ask(
            "POST", f"{queues}/jobs/messages", {"instructions": "write to Ada", "template": "letter.md"}
        )
        await self.ask(
            "POST", f"{queues}/jobs/messages?delay=5400", {"instructions": "ask again", "name": "order-1041"}
        )
        await self.ask("POST", f"{queues}/reports/messages", [{"week": week, "format": "pdf"} for week in range(1, 49)])
        await self.ask("POST", f"{queues}/reports/pause")
        await self.ask(
            "POST", "/rooms/support/queues/mail/messages", {"from": "grace@example.org", "subject": "Invoice"}
        )
        nightly = {"name": "nightly report", "queue": "reports", "message": {"week": "now"}, "cron": "30 2 * * 1-5"}
        await self.ask("POST", f"/rooms/{ROOM}/schedules", {**nightly, "timezone": "Europe/Berlin"})
        await self.ask("POST", f"/rooms/{ROOM}/hooks", {"name": "shop", "queue": "jobs", "verify": "github"})
        found = await self.ask("GET", f"{queues}/jobs/messages/{dead['id']}?wait=60")
        assert found["state"] == "dead", found
        return str(found["id"])


async def shoot(page: Page, url: str, name: str) -> None:
    """Take the picture of a page once it has loaded what it shows."""
    await page.goto(url)
    await page.wait_for_selector("h1")
    await expect(page.locator(".loading")).to_have_count(0, timeout=30_000)
    await page.wait_for_timeout(500)  # charts are drawn in the frame after their points came
    await page.screenshot(path=ALL / f"{name}.png")


async def person(browser: Browser, url: str, key: str | None, theme: Any, size: str) -> BrowserContext:
    """A browser of its own, signed in with the key."""
    width, height = SIZES[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, locale="en-GB", timezone_id="Europe/Berlin"
    )
    if key is not None:
        answer = await context.request.post(f"{url}/studio/api/session", data={"key": key})
        assert answer.ok, await answer.text()
    return context


async def talk(browser: Browser, url: str, key: str) -> str:
    """Say something to the chat bot; return the address of the thread."""
    page = await (await person(browser, url, key, "light", "wide")).new_page()
    await page.goto(f"{url}/studio/rooms/{ROOM}/talk/chat")
    await page.get_by_label("Message to assistant").fill("Which orders are unpaid?")
    await page.keyboard.press("Enter")
    await page.get_by_text("Shall I?").wait_for()
    await page.goto(f"{url}/studio/rooms/{ROOM}/files")
    await page.set_input_files(
        "input[type=file]", {"name": "week-48.md", "mimeType": "text/markdown", "buffer": _REPORT}
    )
    await page.get_by_text("stored").wait_for()
    await page.go_back()
    await page.wait_for_url("**/talk/chat/**")
    address = page.url
    await page.context.close()
    return address


async def failed_trace(url: str, key: str) -> str:
    """The id of a trace in which something failed."""
    async with aiohttp.ClientSession() as http:
        found = await Server(http, url, key).ask("GET", f"/rooms/{ROOM}/traces?failed=true&limit=1")
    return str(found["traces"][0]["trace"])


async def pictures(url: str, key: str, dead: str) -> None:
    """Every page, in each theme and width."""
    room = f"{url}/studio/rooms/{ROOM}"
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS, headless=True)
        thread = await talk(browser, url, key)
        mine = {
            "home": f"{url}/studio/",
            "room": room,
            "queues": f"{room}/queues",
            "queue": f"{room}/queues/jobs",
            "message": f"{room}/queues/jobs/{dead}",
            "files": f"{room}/files",
            "file": f"{room}/files/week-48.md",
            "chat": thread,
            "tasks": f"{room}/talk/tasks",
            "tools": f"{room}/talk/tools",
            "schedules": f"{room}/schedules",
            "hooks": f"{room}/hooks",
            "document": f"{room}/documents/{thread.partition('/talk/chat/')[2]}",
            "traces": f"{room}/traces",
            "trace": f"{room}/traces/{await failed_trace(url, key)}",
            "log": f"{room}/logs",
            "usage": f"{url}/studio/usage",
            "keys": f"{url}/studio/keys",
        }
        async with aiohttp.ClientSession() as http:
            hosts = await Server(http, url, OPERATOR_KEY).ask("GET", "/hosts")
        operators = {
            "operator": f"{url}/studio/",
            "tenants": f"{url}/studio/tenants",
            "tenant": f"{url}/studio/tenants/default",
            "hosts": f"{url}/studio/hosts",
            "host": f"{url}/studio/hosts/{hosts['hosts'][0]['id']}",
        }
        for theme in THEMES:
            for size in SIZES:
                for who, addresses in ((None, {"sign-in": f"{url}/studio/"}), (key, mine), (OPERATOR_KEY, operators)):
                    context = await person(browser, url, who, theme, size)
                    page = await context.new_page()
                    for name, address in addresses.items():
                        await shoot(page, address, f"{name}-{theme}-{size}")
                    await context.close()
        await browser.close()


async def main() -> None:
    """Take them."""
    shutil.rmtree(ALL, ignore_errors=True)
    ALL.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="meshhost-studio-") as folder:
        home = {
            "MESHHOST_DATA_DIR": f"{folder}/data",
            "MESHHOST_CONFIG_DIR": f"{folder}/config",
            "MESHHOST_OPERATOR_KEY": OPERATOR_KEY,
        }
        setup = await asyncio.create_subprocess_exec(*_command(home), "setup", "--json", stdout=asyncio.subprocess.PIPE)
        key = json.loads((await setup.communicate())[0])["api_key"]
        async with running("room", "serve", "--port", "0", "--json", ready='"url"', environment=home) as line:
            url = json.loads(line)["url"]
            program = {**home, "MESHHOST_API_URL": url, "MESHHOST_API_KEY": key}
            run = ("service", "run", str(PROGRAM), "--room", ROOM)
            async with running(*run, ready="assistant joined", environment=program), aiohttp.ClientSession() as http:
                dead = await Server(http, url, key).fill()
                await pictures(url, key, dead)
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    for name in ("-".join(parts) for parts in SHOWN):
        shutil.copyfile(ALL / f"{name}.png", KEPT / f"{name}.png")
    sys.stdout.write(f"{len(list(ALL.iterdir()))} pictures in {ALL}, {len(SHOWN)} of them in {KEPT}\n")


if __name__ == "__main__":
    asyncio.run(main())
