"""The mails of an agent in its room's storage: the mail as it came, its attachments, and what it says as JSON.

A mail lies in `.emails/YEAR/MONTH/DAY/HOUR/MINUTE/SECOND/HEX/` as `message.eml`, `message.json` and `attachments/NAME`, where
MeshAgent has it too. `.emails/ids/` has the JSON once more, by the agent's address and the Message-ID: threads are found there,
and a mail that comes twice. That entry is written last, so a mail that is found is complete; one whose saving was interrupted
is saved again.

A Message-ID is chosen by the sender. Another mail under the id of one that is kept gets an id of its own, so that nobody
replaces what an agent believes it was told.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meshhost.errors import NotFoundError, RoomError
from meshhost.mail.addresses import address_key
from meshhost.mail.attachments import unique_names
from meshhost.mail.parsing import Attachment, Mail

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["FOLDER", "MailArchive", "mail_json"]

FOLDER = ".emails"
_IDS = f"{FOLDER}/ids"
# What a model is given of one mail; the whole is in the file.
_MOST_BODY = 200_000

Json = dict[str, Any]


class MailArchive:
    """Keeps the mails of the agent with the address `own` in the storage of `room`. All methods raise RoomError."""

    def __init__(self, room: "RoomClient", own: str) -> None:
        self._room = room
        self._ids = f"{_IDS}/{_hash(address_key(own))[:32]}"

    async def load(self, message_id: str) -> Json | None:
        """Return a kept mail by its id, or None."""
        try:
            file = await self._room.storage.download(path=self._path_of(message_id))
        except NotFoundError:
            return None
        try:
            value = json.loads(file.data)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    async def save(self, content: bytes, message: Json, attachments: tuple[Attachment, ...]) -> Json:
        """Keep a mail; return its JSON with the paths of what was written. One that is kept already is returned."""
        message["digest"] = _digest(message)
        kept = await self.load(message["id"])
        if kept is not None and kept.get("digest") == message["digest"]:
            return kept
        if kept is not None:
            message["meta"] = {**message.get("meta", {}), "message_id": message["id"]}
            message["id"] = f"<{_hash(message['id'] + message['digest'])[:40]}@same-id.invalid>"
            if (kept := await self.load(message["id"])) is not None:
                return kept
        folder = datetime.now(UTC).strftime(f"{FOLDER}/%Y/%m/%d/%H/%M/%S/") + secrets.token_hex(3)
        storage = self._room.storage
        await storage.upload(path=f"{folder}/message.eml", data=content, overwrite=True)
        names = unique_names(each.name for each in attachments)
        paths = [f"{folder}/attachments/{name}" for name in names]
        for each, path in zip(attachments, paths, strict=True):
            await storage.upload(path=path, data=each.data, overwrite=True)
        saved = {**message, "attachments": paths, "path": folder}
        data = json.dumps(saved, ensure_ascii=False).encode()
        await storage.upload(path=f"{folder}/message.json", data=data, overwrite=True)
        await storage.upload(path=self._path_of(saved["id"]), data=data, overwrite=True)
        return saved

    async def content(self, message: Mapping[str, Any]) -> bytes:
        """Return a kept mail as it was received or written. Raises NotFoundError."""
        if not isinstance(message.get("path"), str):
            raise RoomError("the mail was not saved")
        return (await self._room.storage.download(path=f"{message['path']}/message.eml")).data

    def _path_of(self, message_id: str) -> str:
        name = _hash(message_id)
        return f"{self._ids}/{name[:2]}/{name}.json"


def mail_json(mail: Mail, role: str, *, make_id: Callable[[], str]) -> Json:
    """Return a mail as JSON, as MeshAgent's agents have it. `make_id` makes an id for one that has none."""
    sender = mail.sender
    return {
        "id": mail.message_id or make_id(),
        "in_reply_to": mail.in_reply_to,
        "reply_to": (mail.reply_to[0] if mail.reply_to else sender).address,
        "references": " ".join(mail.references) or None,
        "from": sender.address,
        "to": [each.address for each in mail.to],
        "cc": [each.address for each in mail.cc],
        "subject": mail.subject,
        "body": mail.text[:_MOST_BODY],
        "attachments": [each.name for each in mail.attachments],
        "role": role,
        "correlation_id": mail.first("meshagent-correlation-id"),
        "meta": _meta(mail),
    }


def _meta(mail: Mail) -> Json:
    report = dict(mail.report)
    return {
        "delivered_to": mail.first("delivered-to"),
        "return_path": mail.first("return-path"),
        "to": mail.first("to"),
        "cc": mail.first("cc"),
        "date": None if mail.date is None else mail.date.isoformat(),
        "auto_submitted": mail.first("auto-submitted"),
        "precedence": mail.first("precedence"),
        "list_id": mail.first("list-id"),
        "content_type": mail.content_type,
        "is_multipart": mail.is_multipart,
        "body_content_type": "text/html" if mail.html is not None and not mail.is_multipart else "text/plain",
        "dsn": {
            "is_dsn": mail.is_report,
            "status": report.get("status"),
            "action": report.get("action"),
            "diagnostic_code": report.get("diagnostic-code"),
            "final_recipient": report.get("final-recipient"),
        },
    }


def _digest(message: Mapping[str, Any]) -> str:
    """What two copies of a mail have in common, whatever way they took."""
    values = [message.get(name) for name in ("from", "subject", "body", "role")]
    return _hash(json.dumps(values, sort_keys=True))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
