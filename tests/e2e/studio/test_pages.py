"""Every page of Studio in a real browser, full of names and contents that are scripts: they stay text. And axe.

The server runs in the test's process. What is shown came from everybody who can name or write something: queues, messages,
files, schedules, hooks, participants, log lines, errors, keys, tenants. axe finds no serious issue in either theme.
"""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.room.client import RoomClient
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
SCRIPT = "<img src=x onerror=alert(1)>"
HTML = f"<script>alert(1)</script>{SCRIPT}<a href='javascript:alert(1)'>a</a>"
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


async def filled(server: RunningServer) -> tuple[RoomClient, str, str]:
    """Fill the room `den`; returns a participant in it, and the ids of a message that waits and of one that is dead."""
    tenant = TenantId(server.key.project_id)
    room = RoomKey(tenant, "den")
    queue, engines = QueueKey(room, SCRIPT), server.server.engines
    dead = await engines.queues.send(queue, NewMessage(body='"x"'))
    await engines.queues.configure(queue, {"max_attempts": 1})
    [delivery] = await engines.queues.store.lease(queue, HolderId(SCRIPT), seconds=30)
    await engines.queues.store.nack(delivery.lease, reason=EndReason.FAILED, error=f"ValueError: {HTML}")
    waits = await engines.queues.send(queue, NewMessage(body=f'{{"instructions": "{SCRIPT}"}}', headers={"h": SCRIPT}))
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
    member = server.client("den", name=SCRIPT, role="agent")
    await member.connect()
    await member.developer.log(type=SCRIPT, data={"text": HTML})
    return member, str(waits), str(dead)


async def visit(page: Page, base: str, paths: list[str], serious_issues: Any) -> list[str]:
    """What is wrong with these pages, in both themes."""
    wrong: list[str] = []

    async def on_dialog(dialog: Any) -> None:
        wrong.append(f"a script ran: {dialog.message}")
        await dialog.dismiss()

    page.on("dialog", on_dialog)
    for path in paths:
        await page.goto(base + path)
        await expect(page.get_by_role("heading", level=1).first).to_be_visible()
        await expect(page.get_by_text("Loading")).to_have_count(0)
        await page.emulate_media(color_scheme="light")
        wrong += [f"{path}: {issue}" for issue in await serious_issues(page)]
        await page.emulate_media(color_scheme="dark")
        wrong += [f"{path}, dark: {issue}" for issue in await serious_issues(page, rules=["color-contrast"])]
        if await page.locator("img[src=x], main script").count():
            wrong.append(f"{path}: a text became an element")
        if await page.get_by_text("can't be reached").count():
            wrong.append(f"{path}: says that the server is gone")
    return wrong


async def test_every_page_keeps_texts_as_texts_and_nobody_out(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    member, waits, dead = await filled(server)
    queue = "/rooms/den/queues/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    paths = [
        *("/", "/usage", "/keys", "/none"),
        *("/rooms/den", "/rooms/den/queues", queue, f"{queue}?state=dead", f"{queue}/{waits}", f"{queue}/{dead}"),
        *("/rooms/den/talk", "/rooms/den/schedules", "/rooms/den/hooks", "/rooms/den/documents", "/rooms/den/logs"),
        *("/rooms/den/files", *(f"/rooms/den/files/{name.replace('<', '%3C').replace(' ', '%20')}" for name in FILES)),
    ]
    page = await studio.open(
        f"{server.url}/studio/", expected=("Not Found", "Blocked script execution", "NotSameOrigin")
    )
    await expect(page.get_by_label("API key")).to_be_visible()
    wrong = [f"sign in: {issue}" for issue in await serious_issues(page)]
    await page.goto(server.server.studio_link(server.key))
    await page.reload()
    await expect(page.get_by_role("heading", level=1).first).to_be_visible()
    wrong += await visit(page, f"{server.url}/studio", paths, serious_issues)
    operator = await studio.open(server.server.studio_link(None))
    await expect(operator.get_by_role("heading", level=1).first).to_be_visible()
    wrong += await visit(operator, f"{server.url}/studio", ["/", "/tenants", "/tenants/acme", "/hosts"], serious_issues)
    assert wrong == []
    await studio.close()
    await member.close()
