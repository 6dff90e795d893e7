"""Talking with agents in real browsers: a chat whose page is reloaded in the middle of an answer, a task through its form, a
document that several edit.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from meshhost.agents.schemas.document import document_schema
from meshhost.testing.scripted_upstream import ScriptedUpstream
from meshhost.testing.server import running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[3] / "agents" / "chatbot" / "main.py"
ANSWER = "Three orders wait for payment, the oldest since Monday."
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"
TASKS = '''
"""A task runner that says what it was asked."""
import asyncio

from meshhost.agents.task_runner import TaskRunner
from meshhost.api.services import ServiceHost
from meshhost.errors import RoomError

host = ServiceHost()


@host.path("/sorter", identity="sorter")
class Sorter(TaskRunner):
    def __init__(self):
        super().__init__(
            name="sorter",
            title="Sorter",
            description="Says what a message is about",
            input_schema={
                "type": "object",
                "required": ["message", "orders"],
                "additionalProperties": False,
                "properties": {
                    "message": {"type": "string"},
                    "orders": {"type": "integer", "minimum": 1},
                    "channel": {"enum": ["mail", "chat", "phone"]},
                    "strict": {"type": "boolean"},
                },
            },
            output_schema={"type": "object"},
        )

    async def ask(self, *, context, arguments):
        if arguments["message"] == "fail":
            raise RoomError("no such topic")
        return {"topic": "billing", "asked": arguments}


asyncio.run(host.run())
'''


def conversation(page: Page) -> Locator:
    return page.get_by_role("log", name="Conversation")


async def test_an_answer_goes_on_while_its_page_is_reloaded_and_nothing_is_doubled(
    home_with_studio: Any, studio: Any, link_in: Any, serious_issues: Any
) -> None:
    home, go_on, last = home_with_studio, asyncio.Event(), asyncio.Event()
    (home.directory / "bot.py").write_text(EXAMPLE.read_text())
    async with ScriptedUpstream() as upstream:
        home.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        upstream.say(ANSWER, hold=go_on).say(f"**Bold** {SCRIPT}").say("never finished", hold=last)
        async with home.service("bot.py", room="lobby") as service:
            page = await studio.open(link_in(service.lines))
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await page.goto(page.url.partition("/studio")[0] + "/studio/rooms/lobby/talk/chat")
            await page.get_by_label("Message to chatbot").fill("Which orders are unpaid?")
            await page.keyboard.press("Enter")
            said = conversation(page).get_by_role("article")
            await expect(said.nth(1)).to_contain_text("Three")
            await expect(said.nth(1)).to_contain_text("writing…")
            assert await serious_issues(page) == []

            await page.reload()
            await expect(said.nth(1)).to_contain_text("Three")
            await expect(said.nth(1)).to_contain_text("writing…")
            await expect(said.nth(1)).not_to_contain_text("Monday")
            go_on.set()
            await expect(said.nth(1)).to_contain_text(ANSWER)
            await expect(said.nth(1)).not_to_contain_text("writing…")
            await page.reload()
            await expect(said.nth(1)).to_contain_text(ANSWER)
            await expect(said).to_have_count(2)
            await expect(page.get_by_text(ANSWER)).to_have_count(1)
            await expect(conversation(page).get_by_text("Which orders are unpaid?")).to_have_count(1)

            # What a model says is Markdown, in which nothing is run.
            await page.get_by_label("Message to chatbot").fill(SCRIPT)
            await page.keyboard.press("Enter")
            await expect(said.nth(2)).to_contain_text(SCRIPT)
            await expect(said.nth(3).locator("strong", has_text="Bold")).to_be_visible()
            await expect(page.locator("img[onerror], main script, main [onerror]")).to_have_count(0)

            # An answer can be stopped.
            await page.get_by_label("Message to chatbot").fill("and now?")
            await page.keyboard.press("Enter")
            await expect(said.nth(5)).to_contain_text("never")
            await page.get_by_role("button", name="Stop", exact=True).click()
            await expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
            await expect(said.nth(5)).not_to_contain_text("writing…")
            last.set()
            await studio.close()


async def test_a_task_is_run_through_the_form_made_from_its_schema(
    home_with_studio: Any, studio: Any, link_in: Any, serious_issues: Any
) -> None:
    home = home_with_studio
    (home.directory / "tasks.py").write_text(TASKS)
    async with home.service("tasks.py", room="lobby") as service:
        page = await studio.open(link_in(service.lines))
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await page.goto(page.url.partition("/studio")[0] + "/studio/rooms/lobby/talk/tasks")
        await page.get_by_label("message").fill("Where is my order?")
        await page.get_by_label("orders").fill("none")
        await page.get_by_role("button", name="Run the task").click()
        await expect(page.get_by_text("Expected a number.")).to_be_visible()
        answers = page.get_by_role("log", name="Answers")
        await expect(answers.get_by_role("heading")).to_have_count(0)

        await page.get_by_label("orders").fill("2")
        await page.get_by_label("channel (optional)").select_option("chat")
        await page.get_by_label("strict").check()
        await page.get_by_role("button", name="Run the task").click()
        await expect(answers.get_by_text("billing")).to_be_visible()
        shown = json.loads(await answers.locator("pre").inner_text())
        asked = {"message": "Where is my order?", "orders": 2, "channel": "chat", "strict": True}
        assert shown == {"topic": "billing", "asked": asked}
        assert await serious_issues(page) == []

        await page.get_by_label("message").fill("fail")
        await page.get_by_role("button", name="Run the task").click()
        await expect(answers.get_by_text("no such topic")).to_be_visible()
        await studio.close()


async def test_edits_of_a_document_are_seen_as_they_happen_with_who_made_them(
    studio: Any, tmp_path: Path, serious_issues: Any
) -> None:
    async with running_server(tmp_path) as server:
        writer, other = server.client("den", name="writer", role="agent"), server.client("den", name=SCRIPT)
        async with writer, other:
            schema = json.dumps(document_schema.to_json()).encode()
            await writer.storage.upload(path=".schemas/document.json", data=schema)
            plan = await writer.sync.open(path="plan.document")
            heading = plan.root.append_child("heading", {"text": "Plan"})
            await writer.sync.flush("plan.document")
            page = await studio.open(server.server.studio_link(server.key))
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await page.goto(f"{server.url}/studio/rooms/den/documents/plan.document")
            tree = page.get_by_role("region", name="Content of plan.document")
            await expect(tree.get_by_text("Plan", exact=True)).to_be_visible()
            await expect(page.get_by_text("Changes by others are shown as they happen.")).to_be_visible()

            heading["text"] = "Plan of the week"
            await expect(tree.get_by_text("Plan of the week")).to_be_visible()
            await expect(page.get_by_text("Changed by writer")).to_be_visible()
            theirs = await other.sync.open(path="plan.document")
            theirs.root.append_child("body", {"text": SCRIPT})
            await expect(tree.get_by_text(SCRIPT)).to_be_visible()
            await expect(page.get_by_text(f"Changed by {SCRIPT}")).to_be_visible()
            await expect(tree.get_by_text("Plan of the week")).to_be_visible()
            await expect(page.locator("img[src=x], main script")).to_have_count(0)
            assert await serious_issues(page) == []
            await studio.close()
