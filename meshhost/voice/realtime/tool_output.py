"""What a realtime model gets as the answer of a tool: always a text, and not a long one, since it is to be spoken."""

from typing import TYPE_CHECKING

from meshhost.agents.adapter import ToolResponseAdapter
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.protocol.messages import EmptyResponse, Response, TextResponse

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["spoken"]

_MAX_CHARS = 20_000
_CUT = " … (cut)"
_plain = OpenAIResponsesToolResponseAdapter()


async def spoken(response: Response, adapter: ToolResponseAdapter | None, room: "RoomClient") -> str:
    """The text for a response: by the program's adapter if there is one; `success` for an empty one."""
    if adapter is not None:
        text = await adapter.to_plain_text(room=room, response=response)
    elif isinstance(response, EmptyResponse) or (isinstance(response, TextResponse) and not response.text):
        text = "success"
    else:
        text = await _plain.to_plain_text(room=room, response=response)
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - len(_CUT)] + _CUT
