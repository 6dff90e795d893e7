"""`meshhost.livekit.agents.voice`: programs of both generations of MeshAgent's SDK make their VoiceBots unchanged."""

import logging
from typing import Any

import pytest
from doubles.voice_stages import LoudActivity, ToneText, ToneVoice

from meshhost.errors import InvalidRequestError, SettingsError
from meshhost.livekit.agents import voice
from meshhost.livekit.agents.voice import VoiceBot, Voicebot
from meshhost.room.participants import RemoteParticipant
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.tools.toolkit import Toolkit
from meshhost.voice import Cascade
from meshhost.voice.bot import VOICE_RULE
from meshhost.voice.realtime import Realtime

TOOLKIT = Toolkit(name="own", tools=[])
default_thinker = voice.default_thinker


@pytest.fixture(autouse=True)
def scripted_thinker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are loaded."""
    stages = {"speech_to_text": ToneText([]), "text_to_speech": ToneVoice(), "voice_activity": LoudActivity()}
    monkeypatch.setattr(voice, "default_thinker", lambda: Cascade(llm_adapter=ScriptedLLM(), **stages))


def seen(bot: VoiceBot) -> dict[str, Any]:
    return {
        "labels": bot.labels,
        "voice": bot.voice,
        "rules": bot.rules[:-1],
        "greeting": (bot.greeting, bot.greeting_prompt),
        "toolkits": bot.toolkits,
    }


def test_arguments_by_position_as_in_0_6() -> None:
    bot = Voicebot("bot", "Bot", "talks", ["a"], ["be kind"], "hello", None, None, [TOOLKIT], None)
    assert (bot.name, bot.title, bot.description) == ("bot", "Bot", "talks")
    assert seen(bot) == {
        "labels": ["a"],
        "voice": None,
        "rules": ["be kind"],
        "greeting": ("hello", None),
        "toolkits": [TOOLKIT],
    }


@pytest.mark.parametrize("name_of_voice", ["echo", None])
def test_arguments_by_position_as_in_0_56(name_of_voice: str | None) -> None:
    bot = VoiceBot("bot", "Bot", "talks", name_of_voice, {"a": "b"}, ["be kind"], None, "greet", None, [TOOLKIT])
    assert seen(bot) == {
        "labels": [],
        "voice": name_of_voice,
        "rules": ["be kind"],
        "greeting": (None, "greet"),
        "toolkits": [TOOLKIT],
    }


async def test_arguments_by_name_of_either() -> None:
    old = VoiceBot(name="bot", labels=["a"], rules=["be kind"], auto_greet_message="hello")
    assert (old.labels, old.greeting) == (["a"], "hello")
    new = VoiceBot(name="bot", voice="echo", annotations={"a": "b"}, client_rules={"phone": ["be brief"]})
    caller = RemoteParticipant(id="ann", attributes={"client": "phone"})
    assert await new.get_rules(caller) == [VOICE_RULE, "be brief"]


@pytest.mark.parametrize(
    ("arguments", "named", "error", "reason"),
    [
        (("bot", None, None, ["a"]), {"labels": ["b"]}, TypeError, "several values for argument 'labels'"),
        (("bot", None, None, 7), {}, InvalidRequestError, "labels: expected a list of labels"),
        (("bot", None, None, "echo", *[None] * 9), {}, TypeError, "takes 12 positional arguments, 13 were given"),
        (("bot",), {"colour": "red"}, TypeError, "unexpected keyword argument 'colour'"),
    ],
)
def test_arguments_of_neither_are_refused(
    arguments: tuple[Any, ...], named: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        VoiceBot(*arguments, **named)


def test_an_override_that_is_not_called_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class Program(VoiceBot):
        def make_function_tools(self, context: Any) -> list[Any]:
            return []

    with caplog.at_level(logging.WARNING):
        Program("bot")
    [record] = caplog.records
    assert record.method == "make_function_tools"  # type: ignore[attr-defined]


def test_without_the_offline_stages_a_realtime_model_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(**_: Any) -> Any:
        raise SettingsError("voice needs libraries more: pip install 'meshhost[voice]'")

    monkeypatch.setattr(voice, "Cascade", not_installed)
    assert isinstance(default_thinker(), Realtime)
