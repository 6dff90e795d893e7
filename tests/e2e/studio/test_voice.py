"""Talking with an agent in Studio: a real browser whose microphone plays a recording, and an agent that hears for real."""

import shutil
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from doubles.spoken import spoken
from playwright.async_api import Browser, async_playwright, expect

from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[3] / "agents" / "voice_bot" / "main.py"
QUESTION = "What was the name of the first man on the moon?"
RATE = 48_000


@pytest.fixture
async def chromium(chromium_path: str, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser whose microphone hears somebody ask, once, after the agent has greeted."""
    recording = tmp_path / "microphone.wav"
    with wave.open(str(recording), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * RATE * 6) + (await spoken(QUESTION, RATE)).pcm + bytes(2 * RATE * 2))
    flags = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}%noloop",
    )
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium_path, args=flags, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


async def test_a_person_talks_with_an_agent(
    home_with_studio: Any, studio: Any, link_in: Any, serious_issues: Any
) -> None:
    home = home_with_studio
    shutil.copy(EXAMPLE, home.directory / "bot.py")
    async with ScriptedUpstream() as upstream:
        home.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        upstream.say("It was Neil Armstrong. " + "He was a pilot from Ohio, and he was calm. " * 5)
        async with home.service("bot.py", room="lobby") as service:
            page = await studio.open(link_in(service.lines))
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await page.goto(page.url.partition("/studio")[0] + "/studio/rooms/lobby/talk/voice")
            await page.get_by_role("button", name="Talk with voice-bot").click()
            transcript = page.get_by_role("log", name="Transcript")
            await expect(transcript).to_contain_text("Hello! How can I help you?")
            assert await serious_issues(page) == []
            await expect(transcript).to_contain_text("first man on the moon")
            await expect(page.get_by_role("status").get_by_text("speaking")).to_be_visible()
            await page.get_by_role("button", name="Mute").click()
            await expect(page.get_by_role("button", name="Unmute")).to_be_visible()
            await page.get_by_role("button", name="Hang up").click()
            await expect(page.get_by_text("You hung up.")).to_be_visible()
            await studio.close()
