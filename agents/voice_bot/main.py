"""An agent that people talk with: it hears, thinks and speaks, offline.

Shows: `VoiceBot` with the offline cascade (Silero, Whisper and eSpeak NG), rules, a greeting, a tool that the model may call
while somebody talks with it, and transcripts that are threads of the room. Any LLMAdapter thinks; this one uses the room's
gateway.

Run it:        pip install 'meshhost[local,voice]', and the weights: docs/how-to/voice.md
               meshhost service run agents/voice_bot/main.py --room my-room
Talk with it:  Studio, or `make demo-voice`, which plays both sides and leaves a recording

VOICE names a voice of eSpeak NG, such as en-us+f3.
"""

import asyncio
import logging
import os
from datetime import datetime

from meshhost.api.services import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.otel import otel_config
from meshhost.tools import Tool, ToolContext, Toolkit
from meshhost.voice import VoiceBot, VoiceBotContext

otel_config(service_name="voice-bot")
log = logging.getLogger("voice-bot")

host = ServiceHost()


class TimeOfDay(Tool):
    def __init__(self):
        super().__init__(
            name="time_of_day",
            description="Tells what time it is.",
            input_schema={"type": "object", "additionalProperties": False, "required": [], "properties": {}},
        )

    async def execute(self, *, context: ToolContext) -> str:
        return datetime.now().astimezone().strftime("It is %H:%M on %A, the %d of %B.")


@host.path("/voice", identity="voice-bot")
class Receptionist(VoiceBot):
    def __init__(self):
        super().__init__(
            name="voice-bot",
            title="Voice bot",
            description="Talks with people",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            toolkits=[Toolkit(name="clock", tools=[TimeOfDay()])],
            rules=["You are a friendly receptionist. Answer what you are asked."],
            voice=os.getenv("VOICE") or None,
            auto_greet_message="Hello! How can I help you?",
            transcripts="calls",
        )

    async def on_session_ended(self, context: VoiceBotContext, session):
        log.info("a call with %s is over: %s", context.caller.get_attribute("name"), context.transcript_path)


if __name__ == "__main__":
    asyncio.run(host.run())
