"""The attachments of a chat message as messages for the model: texts, images, or just the name of another file.

Limits keep one message from filling the model's context: texts share MAX_TEXT_CHARS, an image may have MAX_IMAGE_BYTES.
Called by `ChatBot` for each message that has attachments. Whether a file is a text or an image is decided by its bytes, never
by its name, which a participant has chosen.
"""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshhost.agents.context import AgentChatContext
from meshhost.errors import ConnectionLostError, RoomError

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["append_attachments"]

MAX_TEXT_CHARS = 64 * 1024
MAX_IMAGE_BYTES = 5 * 1024 * 1024
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


async def append_attachments(
    room: "RoomClient",
    chat: AgentChatContext,
    paths: Sequence[str],
    *,
    max_text_chars: int = MAX_TEXT_CHARS,
    max_image_bytes: int = MAX_IMAGE_BYTES,
) -> None:
    """Append files of the room to the conversation: texts (cut at the limit) and images; other files by name and size.

    A file that cannot be read is named with the reason. Raises ConnectionLostError.
    """
    left = max_text_chars
    for path in paths:
        try:
            data = (await room.storage.download(path=path)).data
        except ConnectionLostError:
            raise
        except RoomError as error:
            chat.append_user_message(f"[The attached file {path!r} cannot be read: {error}]")
            continue
        left -= _append(chat, path, data, left, max_image_bytes)


def _append(chat: AgentChatContext, path: str, data: bytes, left: int, max_image_bytes: int) -> int:
    """Append one file; return how many characters of text it added."""
    kind = image_type(data)
    if kind is not None and len(data) <= max_image_bytes:
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
    """Return the MIME type of an image that models accept, by its first bytes; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
