"""The tools of several toolkits under names that a model may call.

OpenAI accepts 64 letters, digits, `_` and `-`, and each name once; tools of different toolkits may share a name.
`ToolBundle` maps both ways and runs the calls. Nothing a tool raises ends the exchange: the model gets the error as the
call's answer.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace

from meshhost.errors import InvalidRequestError, MeshhostError
from meshhost.guard import guarding
from meshhost.openai.tools.answer import cleaned
from meshhost.openai.tools.hosted_tools import HostedTool, OutputHandler
from meshhost.protocol.json_values import load_json
from meshhost.protocol.messages import ErrorResponse, Response
from meshhost.tools.schema import is_strict, with_defs
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit
from meshhost.traces.recording import Noted, recorded

__all__ = ["ToolBundle"]

logger = logging.getLogger(__name__)
tracer = trace.get_tracer("meshhost.openai")

_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class _Entry:
    toolkit: Toolkit
    tool: Tool


class ToolBundle:
    """All tools that take arguments, each under a unique name that OpenAI accepts, and the definitions of hosted ones."""

    def __init__(self, toolkits: Sequence[Toolkit]) -> None:
        self._entries: dict[str, _Entry] = {}
        self._hosted: list[dict[str, Any]] = []
        self._handlers: dict[str, OutputHandler] = {}
        for toolkit in toolkits:
            for tool in toolkit.tools:
                if isinstance(tool, Tool):
                    self._entries[self._free_name(toolkit, tool)] = _Entry(toolkit, tool)
                elif isinstance(tool, HostedTool):
                    self._hosted.extend(tool.get_open_ai_tool_definitions())
                    self._handlers.update(tool.get_open_ai_output_handlers())

    def __repr__(self) -> str:
        return f"<ToolBundle {self.names}>"

    @property
    def names(self) -> list[str]:
        """The names, in the order of the toolkits."""
        return list(self._entries)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the tools in the API's form, in strict mode where their schema allows that; then those that the provider
        runs."""
        return [*(_definition(name, entry.tool) for name, entry in self._entries.items()), *self._hosted]

    async def handle(self, context: ToolContext, item: dict[str, Any]) -> dict[str, Any] | None:
        """Hand an item of the model's answer to the hosted tool that it is for; what the provider is answered, or None.

        What the handler raises is logged: the answer is there already, and goes on without it.
        """
        handler = self._handlers.get(str(item.get("type")))
        if handler is None:
            return None
        try:
            with guarding():
                return await handler(context, **item)
        except Exception:  # the program's code may raise anything
            logger.warning("an item of the answer was not handled", extra={"item": item.get("type")}, exc_info=True)
            return None

    async def execute(self, *, context: ToolContext, name: str, arguments: str) -> Response:
        """Call the tool with the JSON text that the model wrote. Errors are returned as an ErrorResponse."""
        with recorded(tracer, "tool.call", sets_status=False) as span:
            span.set_attribute("tool.name", name)
            try:
                return await self._execute(context, name, arguments, span)
            except MeshhostError as error:
                return _failed(span, name, error, str(error))
            except Exception as error:  # whatever a tool raises is for the model to deal with
                logger.warning("a tool crashed", extra={"tool": name}, exc_info=True)
                return _failed(span, name, error, f"{type(error).__name__}: {error}")

    async def _execute(self, context: ToolContext, name: str, arguments: str, span: Noted) -> Response:
        entry = self._entries.get(name)
        if entry is None:
            return ErrorResponse(f"there is no tool {name!r}; there are: {', '.join(self._entries) or 'none'}")
        span.set_attribute("tool.toolkit", entry.toolkit.name)
        parsed = _parsed(arguments)
        # `Toolkit.execute` keeps in what a tool raises, but a program may override it.
        with guarding():
            return await entry.toolkit.execute(context=context, name=entry.tool.name, arguments=parsed)

    def _free_name(self, toolkit: Toolkit, tool: Tool) -> str:
        plain = _safe(tool.name)
        if plain not in self._entries:
            return plain
        name = full = _safe(f"{toolkit.name}_{tool.name}")
        number = 2
        while name in self._entries:
            suffix = f"_{number}"
            name = full[: _LONGEST_NAME - len(suffix)] + suffix
            number += 1
        return name


def _safe(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST_NAME]


def _definition(name: str, tool: Tool) -> dict[str, Any]:
    schema = with_defs(tool.input_schema, tool.defs)
    return {
        "type": "function",
        "name": name,
        "description": tool.description or tool.title,
        "parameters": schema,
        "strict": is_strict(schema),
    }


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        # Some models leave the text empty when there are no arguments.
        parsed = cleaned(load_json(arguments or "{}"))
    except (ValueError, RecursionError):
        raise InvalidRequestError("arguments", "are not valid JSON") from None
    if not isinstance(parsed, dict):
        raise InvalidRequestError("arguments", "must be a JSON object")
    return parsed


def _failed(span: Noted, name: str, error: Exception, text: str) -> ErrorResponse:
    kind = type(error).__name__
    span.fail(kind)
    logger.info("a tool call failed", extra={"tool": name, "error": kind})
    return ErrorResponse(text)
