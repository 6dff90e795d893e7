"""A real browser at a real room server: Debian's Chromium, headless, driven by playwright.

A page that a test opens is watched: an error of a script, a line on its console that is an error, a refusal of its content
security policy and a request that failed make the test fail at its end, unless it says that it expects them.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

_FLAGS = (
    "--no-sandbox",  # CI is root in a container, where Chromium's sandbox does not start
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
# The machine of a test may be busy.
_SECONDS = 30.0
expect.set_options(timeout=_SECONDS * 1000)


@pytest.fixture
def chromium_path() -> str:
    """Debian's Chromium. Skips where there is none; in CI that is a failure."""
    found = shutil.which("chromium")
    if found is not None:
        return found
    reason = "no chromium: `make system-packages` installs it, as root on Debian"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
async def chromium(chromium_path: str) -> AsyncIterator[Browser]:
    """A browser of its own, with nothing in it."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium_path, args=_FLAGS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page, and what went wrong in it. `expected` are patterns of what may."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.expected: list[str] = []
        self._wrong: list[str] = []
        page.on("pageerror", lambda error: self._wrong.append(f"error: {error}"))
        page.on("console", self._on_console)
        page.on("requestfailed", self._on_failed)

    @property
    def wrong(self) -> list[str]:
        """What went wrong and was not expected."""
        return [text for text in self._wrong if not any(re.search(pattern, text) for pattern in self.expected)]

    def _on_failed(self, request: Any) -> None:
        # A page that is left ends its own streams.
        if request.failure != "net::ERR_ABORTED":
            self._wrong.append(f"request: {request.url} {request.failure}")

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._wrong.append(f"console: {message.text} {message.location.get('url', '')}")


class Studio:
    """Opens pages of Studio. Each person has a browser of their own, as far as cookies go."""

    def __init__(self, browser: Browser, stack: AsyncExitStack) -> None:
        self._browser = browser
        self._stack = stack
        self._watched: list[Watched] = []

    async def person(self, **options: Any) -> BrowserContext:
        """A person who has opened nothing yet. `options` are those of a playwright context: theme, size, time zone."""
        given = {
            "viewport": {"width": 1280, "height": 800},
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
            **options,
        }
        context = await self._browser.new_context(**given)
        self._stack.push_async_callback(context.close)
        context.set_default_timeout(_SECONDS * 1000)
        return context

    async def open(self, url: str, person: BrowserContext | None = None, *, expected: tuple[str, ...] = ()) -> Page:
        """A page at this address."""
        page = await (person or await self.person()).new_page()
        watched = Watched(page)
        watched.expected += expected
        self._watched.append(watched)
        await page.goto(url)
        return page

    async def close(self) -> None:
        """Close all pages, before their server stops; what went wrong in them fails the test."""
        wrong = [text for watched in self._watched for text in watched.wrong]
        self._watched.clear()
        await self._stack.aclose()
        assert not wrong, "\n".join(wrong)


@pytest.fixture
async def studio(chromium: Browser) -> AsyncIterator[Studio]:
    """The pages of this test, which it closes before its server stops."""
    opened = Studio(chromium, AsyncExitStack())
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The script that checks a page for what keeps people out."""
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text()


@pytest.fixture
def serious_issues(axe_source: str) -> Callable[[Page], Any]:
    """Asks axe for the serious and critical issues of a page as it is now."""

    async def check(page: Page, *, rules: list[str] | None = None) -> list[str]:
        """Issues by all rules, or by these."""
        await page.evaluate(axe_source)
        # Not the frames: ours are sandboxed, so they have no origin that axe could speak to, and show what users wrote.
        options: dict[str, Any] = {"resultTypes": ["violations"], "iframes": False}
        if rules is not None:
            options["runOnly"] = {"type": "rule", "values": rules}
        results = await page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
            for each in results["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    return check


def link_of(lines: list[str]) -> str:
    """The link to Studio among the lines that a server printed."""
    found = re.search(r"http://\S+/studio/#code=\S+", "\n".join(lines))
    assert found is not None, lines
    return found[0]


@pytest.fixture
def link_in() -> Callable[[list[str]], str]:
    """Finds the link that a server printed."""
    return link_of


@pytest.fixture
async def home_with_studio(home: Any) -> Any:
    """A home whose servers print the link to Studio."""
    home.environment["MESHHOST_STUDIO_LINK"] = "always"
    return home


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where a test may put pictures of pages."""
    made = tmp_path / "pictures"
    made.mkdir()
    return made


@pytest.fixture
def in_every_light(serious_issues: Any) -> Any:
    """`await in_every_light(page)`: what is wrong with the page in both themes and widths."""

    async def look(page: Page) -> list[str]:
        wrong: list[str] = []
        for width in (1280, 390):
            await page.set_viewport_size({"width": width, "height": 800})
            for theme in ("light", "dark"):
                await page.emulate_media(color_scheme=theme)
                wrong += await serious_issues(page)
            if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append(f"wider than {width}")
        await page.set_viewport_size({"width": 1280, "height": 800})
        if await page.locator("img[src=x]").count():
            wrong.append("a text became an element")
        return wrong

    return look
