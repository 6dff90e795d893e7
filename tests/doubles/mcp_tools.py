"""The tools that `@modelcontextprotocol/conformance` calls, as tools of a room."""

import asyncio
import base64
from typing import Any

from meshhost.errors import ToolError
from meshhost.protocol.messages import FileResponse
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["PIXEL", "conformance_tools"]

# One red pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
_SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class _Returns(Tool):
    def __init__(self, name: str, result: Any, schema: dict[str, Any] | None = None) -> None:
        super().__init__(name=name, description="For the conformance suite", input_schema=schema or {"type": "object"})
        self._result = result

    async def execute(self, *, context: ToolContext, **_: Any) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class _Progresses(Tool):
    def __init__(self) -> None:
        super().__init__(name="test_tool_with_progress", description="Reports", input_schema={"type": "object"})

    async def execute(self, *, context: ToolContext) -> str:
        for done in (0, 50, 100):
            await context.report_progress(done, 100)
            await asyncio.sleep(0.05)
        return "done"


def conformance_tools() -> list[Tool]:
    """The tools by which a server shows that it keeps the protocol, as far as tools of a room can."""
    headers = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "priority": {"type": "integer", "x-mcp-header": "Priority"},
        },
    }
    return [
        _Returns("test_simple_text", "This is a simple text response for testing."),
        _Returns("test_image_content", FileResponse(data=PIXEL, name="pixel.png", mime_type="image/png")),
        _Returns("test_audio_content", FileResponse(data=b"RIFF....WAVE", name="sound.wav", mime_type="audio/wav")),
        _Returns("test_embedded_resource", FileResponse(data=b"text", name="a.txt", mime_type="text/plain")),
        _Returns("test_error_handling", ToolError("This tool intentionally returns an error for testing")),
        _Returns("test_logging_tool", "nothing is logged"),
        _Returns("test_streaming_elicitation", "nothing is asked"),
        _Returns("test_x_mcp_header", "routed", headers),
        _Returns("json_schema_2020_12_tool", "valid", _SCHEMA_2020_12),
        _Progresses(),
    ]
