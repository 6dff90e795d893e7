"""`meshhost chat` with real processes: room server, service, the example's chat bot, a scripted provider."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[2] / "agents" / "chatbot" / "main.py"


async def test_a_question_is_answered_and_the_thread_outlives_the_bot(home: Any) -> None:
    (home.directory / "bot.py").write_text(EXAMPLE.read_text())
    chat = ("chat", "--room=lobby", "--agent=chatbot", "--thread=a.thread")
    async with ScriptedUpstream() as upstream:
        home.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        upstream.say("Good morning.").say("You said hello.").say("late", hold=asyncio.Event())
        async with home.room_server():
            async with home.service("bot.py", room="lobby") as service:
                assert await home.cli(*chat, "--message", "hello") == "Good morning.\n"
                service.signal(signal.SIGTERM)
                assert await service.exit_code() == 0
            async with home.service("bot.py", room="lobby"):
                answer = json.loads(await home.cli(*chat, "--message", "what did I say?", "--json"))
                assert answer == {"thread": "a.thread", "agent": "chatbot", "text": "You said hello."}
                said = [item["content"] for item in upstream.requests[1].body["input"]]
                assert said == ["hello", "Good morning.", "what did I say?"]
                async with home.meshhost(*chat, "--message", "and?") as asking:
                    await upstream.wait_for_request()
                    await upstream.wait_for_request()
                    await upstream.wait_for_request()
                    asking.signal(signal.SIGINT)
                    assert await asking.exit_code() == 130
            async with home.meshhost("chat", "--room=lobby", "--agent=nobody", "--message=hi") as asking:
                await asking.line("no agent 'nobody' receives messages in room 'lobby'")
                assert await asking.exit_code() == 1
