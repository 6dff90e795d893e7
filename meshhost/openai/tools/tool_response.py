"""Turns responses of tools into messages of the Responses API: texts and JSON as text, images as images, other files by name.

The adapter calls it once for each finished tool call and appends the messages to the conversation. Every call must get exactly
one output of its id, also when the tool failed: the API refuses a conversation with an unanswered call.
"""

import base64
import json
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    LinkResponse,
    RawOutputs,
    Response,
    TextResponse,
)

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["OpenAIResponsesToolResponseAdapter", "call_output"]

_IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_MAX_IMAGE_BYTES = 8 * 1024 * 1024
_MAX_TEXT_BYTES = 256 * 1024


def call_output(call_id: str, output: str | list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message that answers a tool call."""
    return {"type": "function_call_output", "call_id": call_id, "output": output}


class OpenAIResponsesToolResponseAdapter(ToolResponseAdapter):
    """Texts unchanged, JSON and links as JSON, images as images, other files by name and size."""

    async def to_plain_text(self, *, room: "RoomClient", response: Response) -> str:
        """Return the response as a text."""
        match response:
            case TextResponse():
                return response.text
            case JsonResponse():
                return _dumped(response.json)
            case LinkResponse():
                return _dumped({"name": response.name, "url": response.url})
            case FileResponse():
                return _file_text(response)
            case EmptyResponse():
                return "done"
            case ErrorResponse():
                return f"error: {response.text}"
            case RawOutputs():
                return _dumped(response.outputs)

    async def create_messages(
        self, *, context: AgentChatContext, tool_call: Any, room: "RoomClient", response: Response
    ) -> list[dict[str, Any]]:
        """Return one `function_call_output`; raw outputs are passed on, preceded by one unless they contain it."""
        call_id: str = tool_call.call_id
        if isinstance(response, RawOutputs):
            return _raw(call_id, response.outputs)
        if isinstance(response, FileResponse) and _is_image(response):
            return [call_output(call_id, [_image(response)])]
        return [call_output(call_id, await self.to_plain_text(room=room, response=response))]


def _dumped(value: Any) -> str:
    """JSON for the model. Numbers and keys that JSON does not have are errors that the model can read."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return "error: the tool's answer is not JSON"


def _file_text(file: FileResponse) -> str:
    about = f"file {file.name} ({file.mime_type}, {len(file.data)} bytes)"
    is_text = file.mime_type.startswith("text/") or file.mime_type == "application/json"
    if not is_text or len(file.data) > _MAX_TEXT_BYTES:
        return about
    try:
        return file.data.decode()
    except UnicodeDecodeError:
        return about


def _is_image(file: FileResponse) -> bool:
    return file.mime_type in _IMAGES and len(file.data) <= _MAX_IMAGE_BYTES


def _image(file: FileResponse) -> dict[str, Any]:
    encoded = base64.b64encode(file.data).decode()
    return {"type": "input_image", "image_url": f"data:{file.mime_type};base64,{encoded}", "detail": "auto"}


def _raw(call_id: str, outputs: list[Any]) -> list[dict[str, Any]]:
    messages = [output for output in outputs if isinstance(output, dict)]
    is_answered = any(message.get("call_id") == call_id for message in messages)
    return messages if is_answered else [call_output(call_id, "done"), *messages]
