"""What a model is shown of the files that go with a message."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshhost.agents.context import AgentChatContext
from meshhost.errors import ConnectionLostError, RoomError

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["append_attachments"]

MAX_TEXT_CHARS = 64 * 1024  # of all texts of a message together
MAX_IMAGE_BYTES = 5 * 1024 * 1024
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


async def append_attachments(room: "RoomClient", chat: AgentChatContext, paths: Sequence[str]) -> None:
    """Append files of the room to the conversation: texts within limits, images as pictures, of others the names.

    A file that cannot be read is named with the reason. Raises ConnectionLostError.
    """
    left = MAX_TEXT_CHARS
    for path in paths:
        try:
            data = (await room.storage.download(path=path)).data
        except ConnectionLostError:
            raise
        except RoomError as error:
            chat.append_user_message(f"[The attached file {path!r} cannot be read: {error}]")
            continue
        left -= _append(chat, path, data, left)


def _append(chat: AgentChatContext, path: str, data: bytes, left: int) -> int:
    """Returns how many characters of text were appended."""
    kind = image_type(data)
    if kind is not None and len(data) <= MAX_IMAGE_BYTES:
        chat.append_user_message(f"[The attached image {path!r}:]")
        chat.append_user_image(f"data:{kind};base64,{base64.b64encode(data).decode()}")
        return 0
    text = None if kind is not None else _text(data)
    if text is None:
        chat.append_user_message(f"[A file is attached: {path!r}, {len(data)} bytes]")
        return 0
    shown = text[: max(left, 0)]
    rest = "" if len(shown) == len(text) else f"\n[The rest is left out: {len(text)} characters in all.]"
    chat.append_user_message(f"[The attached file {path!r}:]\n{shown}{rest}")
    return len(shown)


def image_type(data: bytes) -> str | None:
    """The MIME type of an image that models take, told by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
