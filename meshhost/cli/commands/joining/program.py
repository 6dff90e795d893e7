"""The program that runs an agent of flags: `program.py SETTINGS`, where SETTINGS is the JSON text that `joining.py` makes.

An ordinary program with a `ServiceHost`, which `meshhost service run` runs. It is not imported by anything.
"""

import asyncio
import json
import sys
from typing import Any

from meshhost.agents.base import SingleRoomAgent
from meshhost.hosting.service_host import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter, WebSearchTool
from meshhost.room.requirements import RequiredToolkit, Requirement
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.toolkit import Toolkit

__all__: list[str] = []


def _agent(settings: dict[str, Any]) -> SingleRoomAgent:
    """Make the agent that the settings describe."""
    options: dict[str, Any] = {
        "name": settings["name"],
        "llm_adapter": OpenAIResponsesAdapter(model=settings.get("model")),
        "rules": settings["rules"],
        "toolkits": _toolkits(settings),
        "requires": _requirements(settings),
    }
    if settings["kind"] == "taskrunner":
        from meshhost.agents.llmrunner import LLMTaskRunner

        return LLMTaskRunner(**options)
    if settings["kind"] == "mailbot":
        from meshhost.agents.mail import MailWorker

        address = settings.get("email_address")
        return MailWorker(**options, queue=settings.get("queue") or address or "email", email_address=address)
    if settings["kind"] == "voicebot":
        return _voice_bot(settings, options)
    from meshhost.agents.chat import ChatBot

    return ChatBot(**options, auto_greet_message=settings.get("greet"))


def _voice_bot(settings: dict[str, Any], options: dict[str, Any]) -> SingleRoomAgent:
    from meshhost.livekit.agents.voice import VoiceBot, default_thinker

    adapter = options.pop("llm_adapter")
    greetings: dict[str, Any] = {
        "auto_greet_message": settings.get("greet"),
        "auto_greet_prompt": settings.get("greet_prompt"),
    }
    return VoiceBot(**options, **greetings, thinker=default_thinker(adapter, model=settings.get("model")))


def _toolkits(settings: dict[str, Any]) -> list[Toolkit]:
    found: list[Toolkit] = [StorageToolkit()] if settings.get("storage") else []
    if settings.get("web_search"):
        found.append(Toolkit(name="web", tools=[WebSearchTool()]))
    for number, url in enumerate(settings.get("mcp_urls", ()), 1):
        from meshhost.mcp import HttpServer, MCPServerToolkit

        found.append(MCPServerToolkit(name=f"mcp-{number}", server=HttpServer(url)))
    return found


def _requirements(settings: dict[str, Any]) -> list[Requirement]:
    return [RequiredToolkit(name=name) for name in settings.get("required", ())]


def main(text: str) -> None:
    """Run the agent until a signal."""
    settings = json.loads(text)
    host = ServiceHost()

    def made() -> SingleRoomAgent:
        return _agent(settings)

    host.add_path("/agent", cls=made, identity=settings["name"])
    asyncio.run(host.run())


if __name__ == "__main__":
    main(sys.argv[1])
