"""Every page of Studio in a real browser, full of names and contents that are scripts: they stay text. And axe.

The server runs in the test's process. What is shown came from everybody who can name or write something: queues, messages,
files, schedules, hooks, participants, log lines, errors, keys, tenants, documents, tasks and tools, what models say. axe finds
no serious issue in either theme at either width, and no page is wider than its screen.
"""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from playwright.async_api import Page, expect

from meshhost.agents.schemas.document import document_schema
from meshhost.documents.thread_schema import thread_schema
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.client import RoomClient
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
SCRIPT = "<img src=x onerror=alert(1)>"
HTML = f"<script>alert(1)</script>{SCRIPT}<a href='javascript:alert(1)'>a</a>"
DOCUMENT, THREAD = f"{SCRIPT.replace('/', '')}.document", "chats/a.thread"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
# What a page says on its console about what is forbidden to scripts, and about a page that is not there.
EXPECTED = ("Not Found", "Blocked script execution", "NotSameOrigin")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
FILES = {
    f"{SCRIPT.replace('/', '')}.txt": HTML,
    "note.md": f"# Hello\n\n{HTML}\n\n[a](javascript:alert(1)) ![b](x)",
    "page.html": HTML,
    "picture.svg": SVG,
    "data.json": f'{{"a": "{SCRIPT}"}}',
    "table.csv": f"name,{SCRIPT}\n1,2\n",
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY) as running:
        yield running


@asynccontextmanager
async def filled(server: RunningServer) -> AsyncIterator[dict[str, str]]:
    """The room `den` full of scripts, with a participant in it. Yields ids of messages: one that waits, is dead, is done."""
    tenant = TenantId(server.key.project_id)
    room = RoomKey(tenant, "den")
    queue, engines = QueueKey(room, SCRIPT), server.server.engines
    ids = {}
    for name in ("DEAD", "DONE"):
        ids[name] = str(await engines.queues.send(queue, NewMessage(body=json.dumps({"a": SCRIPT}))))
        await engines.queues.configure(queue, {"max_attempts": 1})
        [delivery] = await engines.queues.store.lease(queue, HolderId(SCRIPT), seconds=30)
        if name == "DEAD":
            await engines.queues.store.nack(delivery.lease, reason=EndReason.FAILED, error=f"ValueError: {HTML}")
        else:
            await engines.queues.store.extend(delivery.lease, seconds=30, progress=json.dumps({"text": HTML}))
            await engines.queues.store.ack(delivery.lease, result=json.dumps({"text": HTML}))
    waits = NewMessage(body=f'{{"instructions": "{SCRIPT}"}}', headers={"h": SCRIPT}, key=SCRIPT)
    ids["WAITS"] = str(await engines.queues.send(queue, waits))
    for name, text in FILES.items():
        await engines.files.write(room, name, io.BytesIO(text.encode()), overwrite=True)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.api_key}"}) as http:

        async def post(path: str, body: Any, key: str | None = None) -> None:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            async with http.post(server.url + path, json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()

        await post("/rooms/den/schedules", {"queue": "jobs", "every": 3600, "name": SCRIPT, "message": {"a": HTML}})
        await post("/rooms/den/hooks", {"queue": "jobs", "name": SCRIPT, "verify": "none"})
        await post(f"/tenants/{tenant}/keys", {"name": SCRIPT, "description": HTML, "role": "viewer"})
        await post("/tenants", {"name": "acme"}, OPERATOR_KEY)
        await post("/tenants/acme/suspend", {"reason": SCRIPT}, OPERATOR_KEY)
    async with server.client("den", name=SCRIPT, role="agent") as member:
        await offer(member)
        yield ids


async def offer(member: RoomClient) -> None:
    """Log, offer a task and a tool, and write documents, all in scripts."""
    await member.developer.log(type=SCRIPT, data={"text": HTML})
    await member.messaging.enable()
    schema = {"type": "object", "required": [], "properties": {SCRIPT: {"type": "string", "description": HTML}}}
    described = {"title": SCRIPT, "description": HTML, "input_schema": schema}
    await member.send_request("agent.register_agent", {"name": "sorter", "requires": [], "labels": [], **described})
    tools = {"count": {**described, "thumbnail_url": None, "pricing": None, "defs": None}}
    await member.send_request(
        "agent.register_toolkit",
        {"name": "text", "title": SCRIPT, "description": HTML, "tools": tools, "public": True, "thumbnail_url": None},
    )
    for extension, known in (("document", document_schema), ("thread", thread_schema)):
        data = json.dumps(known.to_json()).encode()
        await member.storage.upload(path=f".schemas/{extension}.json", data=data, overwrite=True)
    document = await member.sync.open(path=DOCUMENT)
    document.root.append_child("heading", {"text": HTML})
    thread = await member.sync.open(path=THREAD)
    messages = thread.root.append_child("messages", {})
    said = {
        "id": "1",
        "author_name": SCRIPT,
        "created_at": "2026-01-01T00:00:00Z",
        "text": f"{FILES['note.md']}\n\n{SVG}",
    }
    messages.append_child("message", said).append_child("file", {"path": f"{SCRIPT}.txt"})
    messages.append_child("exec", {"command": HTML, "result": HTML, "pwd": ""})
    await member.sync.flush(DOCUMENT)
    await member.sync.flush(THREAD)


async def as_shown(page: Page) -> list[str]:
    """What is wrong with the page as it is now: a script that ran, a text that became an element, a page that is too wide."""
    wrong = []
    if await page.locator("img[src=x], main script, main [onerror], main [onload], [href^='javascript:']").count():
        wrong.append("a text became an element")
    if await page.get_by_text("can't be reached").count():
        wrong.append("says that the server is gone")
    wide = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    if wide[0] > wide[1]:
        wrong.append(f"is {wide[0]} px wide on a screen of {wide[1]}")
    return wrong


async def visit(page: Page, base: str, paths: list[str], serious_issues: Any) -> list[str]:
    """What is wrong with these pages: in both themes and both widths, by all rules of axe."""
    wrong: list[str] = []

    async def on_dialog(dialog: Any) -> None:
        wrong.append(f"a script ran: {dialog.message}")
        await dialog.dismiss()

    page.on("dialog", on_dialog)
    for path in paths:
        await page.set_viewport_size(WIDE)
        await page.goto(base + path)
        await expect(page.get_by_role("heading", level=1).first).to_be_visible()
        await expect(page.locator(".loading[role=status]")).to_have_count(0)
        for size, theme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")):
            await page.set_viewport_size(size)
            await page.emulate_media(color_scheme=theme)
            found = [*await as_shown(page), *await serious_issues(page)]
            wrong += [f"{path}, {theme}, {size['width']} px: {each}" for each in found]
    return wrong


def quoted(name: str) -> str:
    return quote(name, safe="()")


QUEUE = f"/rooms/den/queues/{quoted(SCRIPT)}"
PAGES = {
    "home": ["/", "/usage", "/keys", "/none"],
    "work": ["/rooms/den", "/rooms/den/queues", QUEUE, f"{QUEUE}?state=dead", "WAITS", "DEAD", "DONE"],
    "room": ["/rooms/den/schedules", "/rooms/den/hooks", "/rooms/den/logs", "/rooms/none", "/rooms/none/queues"],
    "talk": [
        *("/rooms/den/talk", "/rooms/den/talk/tasks", "/rooms/den/talk/tools"),
        *("/rooms/den/documents", f"/rooms/den/documents/{quoted(DOCUMENT)}", f"/rooms/den/talk/chat/{THREAD}"),
    ],
    "files": ["/rooms/den/files", *(f"/rooms/den/files/{quoted(name)}" for name in FILES)],
}


@pytest.mark.parametrize("pages", list(PAGES))
async def test_every_page_keeps_texts_as_texts_and_nobody_out(
    server: RunningServer, studio: Any, serious_issues: Any, pages: str
) -> None:
    async with filled(server) as ids:
        page = await studio.open(server.server.studio_link(server.key), expected=EXPECTED)
        await expect(page.get_by_role("heading", level=1).first).to_be_visible()
        paths = [f"{QUEUE}/{ids[path]}" if path in ids else path for path in PAGES[pages]]
        assert await visit(page, f"{server.url}/studio", paths, serious_issues) == []
        await studio.close()


async def test_the_operators_pages_and_the_sign_in_do_too(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    async with filled(server):
        stranger = await studio.open(f"{server.url}/studio/")
        await expect(stranger.get_by_label("API key")).to_be_visible()
        wrong = await visit(stranger, f"{server.url}/studio", ["/"], serious_issues)
        operator = await studio.open(server.server.studio_link(None))
        await expect(operator.get_by_role("heading", level=1).first).to_be_visible()
        paths = ["/", "/tenants", "/tenants/acme", "/hosts"]
        wrong += await visit(operator, f"{server.url}/studio", paths, serious_issues)
        assert wrong == []
        await studio.close()


async def test_what_is_found_and_what_is_opened_keeps_texts_as_texts(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    """The palette, dialogs and messages of failures show names too."""
    async with filled(server):
        page = await studio.open(server.server.studio_link(server.key), expected=EXPECTED)
        await expect(page.get_by_role("heading", level=1).first).to_be_visible()
        wrong: list[str] = []
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        await page.keyboard.press("/")
        await page.keyboard.type("<img")
        await expect(page.get_by_role("option").first).to_contain_text("<img")
        wrong += [*await as_shown(page), *await serious_issues(page)]
        await page.keyboard.press("Escape")
        for path, button in (
            ("/rooms/den/schedules", "Delete <img"),
            ("/rooms/den/schedules", "Change"),
            ("/rooms/den/hooks", "Delete <img"),
            (QUEUE, "Purge"),
            (QUEUE, "Settings"),
            ("/rooms/den", "Dismiss"),
            ("/keys", "Revoke"),
        ):
            for theme in ("light", "dark"):
                await page.emulate_media(color_scheme=theme)
                await page.goto(f"{server.url}/studio{path}")
                await page.get_by_role("main").get_by_role("button", name=button).first.click()
                await expect(page.get_by_role("dialog")).to_be_visible()
                found = [*await as_shown(page), *await serious_issues(page)]
                wrong += [f"{path}, {button}, {theme}: {each}" for each in found]
        assert wrong == []
        await studio.close()


async def test_the_name_of_a_tenant_is_no_text_at_will(server: RunningServer) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {OPERATOR_KEY}"}) as http,
        http.post(f"{server.url}/tenants", json={"name": SCRIPT}) as answer,
    ):
        assert answer.status == 400
