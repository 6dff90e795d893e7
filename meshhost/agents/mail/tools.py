"""Tools of agents that answer mail: attach a file of the room to the answer, and begin a new conversation by mail.

`AttachFile` is made for one answer and collects paths, which the agent reads when the model has written; `NewEmailThread`
belongs to the agent for its whole life and is offered in the room, so its arguments are checked like those of anybody.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from meshhost.errors import NotFoundError
from meshhost.protocol.messages import TextResponse
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["AttachFile", "NewEmailThread", "NewEmailThreadWithAttachments"]

_PATHS = {"type": "array", "items": {"type": "string"}, "description": "paths of files in the room to attach"}


def _schema(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


class Correspondent(Protocol):
    """What writes mails: a MailWorker."""

    async def start_thread(
        self, *, to_address: str, subject: str, body: str, attachments: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Write to somebody; return the mail as JSON."""
        ...


class AttachFile(Tool):
    """Remembers a file of the room, which is attached to the answer that is being written. `paths` has them in order."""

    def __init__(self) -> None:
        super().__init__(
            name="attach file",
            title="Attach a file",
            description="Attaches a file of the room to the answer that you are writing",
            input_schema=_schema(path=_text("where the file is in the room, for example reports/july.pdf")),
        )
        self.paths: list[str] = []

    async def execute(self, *, context: ToolContext, path: str) -> TextResponse:
        """Raises NotFoundError when there is no such file."""
        entry = await context.room.storage.stat(path=path)
        if entry is None or entry.is_folder:
            raise NotFoundError(f"no file {path!r} in this room")
        if path not in self.paths:
            self.paths.append(path)
        return TextResponse(text=f"{path} will be attached")


class NewEmailThread(Tool):
    """Writes a mail to somebody who has not written before."""

    def __init__(self, *, agent: Correspondent, **properties: dict[str, Any]) -> None:
        super().__init__(
            name="new_email_thread",
            title="Write a mail",
            description="Sends a new mail to somebody",
            input_schema=_schema(
                to=_text("the address to write to"),
                subject=_text("what the mail is about"),
                body=_text("the text of the mail"),
                **properties,
            ),
        )
        self._agent = agent

    async def execute(
        self, *, context: ToolContext, to: str, subject: str, body: str, attachments: list[str] | None = None
    ) -> TextResponse:
        """Raises InvalidRequestError for an address, NotFoundError for a file."""
        message = await self._agent.start_thread(
            to_address=to, subject=subject, body=body, attachments=attachments or []
        )
        return TextResponse(text=f"the mail {message['id']} is on its way to {to}")


class NewEmailThreadWithAttachments(NewEmailThread):
    """Writes a mail to somebody who has not written before, with files of the room."""

    def __init__(self, *, agent: Correspondent) -> None:
        super().__init__(agent=agent, attachments=_PATHS)
