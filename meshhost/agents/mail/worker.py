"""`MailWorker`: an agent that takes mails from a queue, lets a model answer, and sends the answers.

A message of the queue holds one mail in base64. It is saved in the room's storage, and then either not answered, for a reason
of `meshhost.mail.answering` or the brake, or answered: the mails of its thread become the conversation, the model writes, and
the answer is saved and put into the outbox, in this order. The Message-ID of an answer is made of the mail that it answers, so
that an attempt which comes after a crash finds the answer that is there: the model is not asked twice, and nobody gets two
answers.

Tasks: those of Worker, one more for the outbox, and one that polls IMAP when a mailbox is given. Overrides written for
MeshAgent's MailWorker (0.6) and MailBot (0.56) work: the methods have their names and arguments. Longer than 400 lines
because programs override these methods, and look for them in one place.
"""

import asyncio
import base64
import binascii
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from email.message import EmailMessage, Message
from typing import TYPE_CHECKING, Any, Literal

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.agents.mail.archive import MailArchive, mail_json
from meshhost.agents.mail.brake import Brake
from meshhost.agents.mail.configuration import SmtpConfiguration, mail_domain, room_address, smtp_server
from meshhost.agents.mail.imap import ImapMailbox, poll
from meshhost.agents.mail.outbox import RETRY_SECONDS, Outbox
from meshhost.agents.mail.tools import AttachFile, NewEmailThread, NewEmailThreadWithAttachments
from meshhost.agents.worker import Worker, idempotency_key
from meshhost.errors import InvalidRequestError, RoomError
from meshhost.guard import call
from meshhost.mail.addresses import is_address
from meshhost.mail.answering import reason_against
from meshhost.mail.composing import File, answer_to, as_bytes, message_id_for, new_mail
from meshhost.mail.delivery import check_library
from meshhost.mail.markup import from_markdown
from meshhost.mail.parsing import Mail, mail_of, parse_message
from meshhost.mail.signing import DkimKey
from meshhost.mail.threads import gather
from meshhost.room.consuming import current_job
from meshhost.room.requirements import Requirement
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["MailThreadContext", "MailWorker"]

logger = logging.getLogger(__name__)

MessageRole = Literal["user", "agent"]
Json = dict[str, Any]
_RULE = "Answer in plain text; write neither JSON nor HTML."


class MailThreadContext:
    """A mail that is being answered: the conversation, the mail as JSON, and the mails of its thread, the newest first."""

    def __init__(self, *, chat: AgentChatContext, message: Json, thread: list[Json]) -> None:
        self.chat = chat
        self.message = message
        self.thread = thread


class MailWorker(Worker):
    """Answers the mails in `queue` as `email_address` (None: the address of the room, see `room_address`).

    `domain` is that of the agent's mail, by default MESHHOST_MAIL_DOMAIN; `smtp` says how mail is sent. `whitelist` are the
    addresses and domains that are answered (None: all). With `reply_all` answers go to everybody whom the mail was addressed
    to. With `enable_attachments` the model may attach files of the room. `toolkit_name` offers the room a toolkit for new
    mails.

    `max_answers` to one address within `answer_window` seconds are sent, then the agent is silent towards it until the window
    has passed. With `auto_submitted` answers say that a program wrote them, and other programs then do not answer. `dkim`
    signs what is sent. `imap` is a mailbox that is polled into the queue. `outbox` names the queue of what is being sent.
    """

    retry_seconds: float = RETRY_SECONDS

    def __init__(
        self,
        *,
        queue: str = "email",
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
        llm_adapter: LLMAdapter[Any],
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
        email_address: str | None = None,
        domain: str | None = None,
        smtp: SmtpConfiguration | None = None,
        toolkit_name: str | None = None,
        whitelist: Sequence[str] | None = None,
        reply_all: bool = False,
        enable_attachments: bool = False,
        concurrency: int = 1,
        deadline: float | None = None,
        max_answers: int = 10,
        answer_window: float = 3600.0,
        auto_submitted: bool = True,
        dkim: DkimKey | None = None,
        imap: ImapMailbox | None = None,
        outbox: str | None = None,
    ) -> None:
        super().__init__(
            queue=queue,
            name=name,
            title=title,
            description=description,
            requires=requires,
            labels=labels,
            llm_adapter=llm_adapter,
            tool_adapter=tool_adapter,
            toolkits=toolkits,
            rules=list(rules or ()) or [_RULE],
            concurrency=concurrency,
            deadline=deadline,
        )
        check_library()
        if email_address is not None and not is_address(email_address):
            raise InvalidRequestError(
                "email_address", f"expected an address such as ann@example.com, got {email_address!r}"
            )
        self._domain = mail_domain(domain)
        self._email_address = email_address or ""
        self._smtp = smtp
        self._toolkit_name = toolkit_name
        self._whitelist = None if whitelist is None else list(whitelist)
        self._reply_all = reply_all
        self._enable_attachments = enable_attachments
        self._auto_submitted = auto_submitted
        self._brake = Brake(most=max_answers, seconds=answer_window)
        self._dkim = dkim
        self._imap = imap
        self._outbox_queue = outbox or f"{queue}.out"
        self._outbox: Outbox | None = None
        self._toolkit: RemoteToolkit | None = None

    @property
    def email_address(self) -> str:
        """The address that it writes as; "" before it is started, when none was given."""
        return self._email_address

    @property
    def activity(self) -> str | None:
        """As Worker says, or that mail is being sent."""
        if (found := super().activity) is not None:
            return found
        return "sending mail" if self._outbox is not None and self._outbox.is_sending else None

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to take and to send mails. Raises SettingsError when it is not known how mail is sent."""
        if not self._email_address:
            self._email_address = room_address(room_name=room.room_name, domain=self._domain)
        server = smtp_server(self._smtp, domain=self._domain, room=room)
        self._outbox = Outbox(room=room, queue=self._outbox_queue, server=server, retry_seconds=self.retry_seconds)
        await super().start(room=room)
        self._tasks.spawn(self._outbox.run(), name="outbox")
        if self._imap is not None:
            self._tasks.spawn(poll(self._imap, room=room, queue=self._queue), name="imap")
        if self._toolkit_name is not None:
            tool = NewEmailThreadWithAttachments if self._enable_attachments else NewEmailThread
            self._toolkit = RemoteToolkit(name=self._toolkit_name, tools=[tool(agent=self)])
            try:
                await self._toolkit.start(room=room)
            except BaseException:  # refused, or cancelled: nobody stops what did not start
                self._toolkit = None
                await self.stop()
                raise

    async def stop(self) -> None:
        """Stop, as Worker does. What is not sent yet stays in the outbox."""
        if self._toolkit is not None:
            await self._toolkit.stop()
            self._toolkit = None
        await super().stop()

    async def drain(self) -> None:
        """Take no further mail, and return when those in progress are answered and sent, or left in the outbox."""
        if self._outbox is not None:
            self._outbox.drain()
        if self._imap is not None:
            self._imap.drain()
        await super().drain()

    # What a mail says.

    def message_to_json(self, *, message: Message, role: MessageRole) -> Json:
        """Return a mail as JSON: what the model gets of it. `meta.no_answer` says why it must not be answered, or is None."""
        mail = mail_of(message)
        value = mail_json(mail, role, make_id=lambda: self._make_id(mail))
        value["meta"]["no_answer"] = None if role == "agent" else self._reason_against(mail)
        return value

    async def load_message(self, *, message_id: str) -> Json | None:
        """Return a saved mail by its Message-ID, or None."""
        return await MailArchive(self.room, self._email_address).load(message_id)

    async def save_email_message(self, *, content: bytes, role: MessageRole) -> Json:
        """Save a mail in the room's storage; return it as JSON, with `path` and the paths of `attachments`."""
        message = await asyncio.to_thread(parse_message, content)
        value = await call(self.message_to_json, message=message, role=role)
        attachments = () if role == "agent" else (await asyncio.to_thread(mail_of, message)).attachments
        return await MailArchive(self.room, self._email_address).save(content, value, attachments)

    async def load_thread(self, *, message: Json, thread: list[Json]) -> None:
        """Add the saved mails of the thread to `thread`, which holds the mail itself: the newest first."""

        async def load(message_id: str) -> Json | None:
            found: Json | None = await call(self.load_message, message_id=message_id)
            return found

        thread += reversed(await gather(message, load))

    async def append_message_context(  # type: ignore[override]
        self, *, message: Json, chat_context: AgentChatContext, thread: list[Json]
    ) -> None:
        """Add the mails of the thread to the conversation, the oldest first; each is a JSON text."""
        for each in reversed(thread):
            text = json.dumps({name: value for name, value in each.items() if name != "digest"}, ensure_ascii=False)
            if each.get("role") == "agent":
                chat_context.append_assistant_message(text)
            else:
                chat_context.append_user_message(text)

    async def should_reply(self, *, message: Json) -> bool:
        """Return whether a saved mail may be answered. An override that answers more may answer programs: think of loops."""
        return (message.get("meta") or {}).get("no_answer") is None

    async def get_thread_toolkits(self, *, thread_context: MailThreadContext) -> list[Toolkit]:
        """Return more toolkits for one answer: with `enable_attachments` the one that attaches files."""
        return [Toolkit(name="mail", tools=[AttachFile()])] if self._enable_attachments else []

    # Answering.

    async def process_message(
        self,
        *,
        chat_context: AgentChatContext,
        message: Any,
        toolkits: Sequence[Toolkit],
        room: "RoomClient | None" = None,
    ) -> Json:
        """Save a mail, and answer it unless that is not allowed.

        `message` is an object whose `base64` is the mail. Returns `answered`, and `reason` or the `message_id` of the answer.
        """
        saved: Json = await call(self.save_email_message, content=content_in(message), role="user")
        if not await call(self.should_reply, message=saved):
            return self._not_answered(saved, (saved.get("meta") or {}).get("no_answer") or "should_reply")
        answer_id = self._answer_id(saved)
        written = await self.load_message(message_id=answer_id)
        if written is not None:  # by an attempt that got no further, or a double of the mail was answered
            await self._post(written)
            return {"answered": True, "message_id": answer_id}
        if not await self._brake.passes(self.room, self._email_address, str(saved["reply_to"]), answer_id):
            return self._not_answered(saved, "too many")
        thread = [saved]
        await call(self.load_thread, message=saved, thread=thread)
        await call(self.append_message_context, message=saved, chat_context=chat_context, thread=thread)
        context = MailThreadContext(chat=chat_context, message=saved, thread=thread)
        more = await call(self.get_thread_toolkits, thread_context=context)
        tools: list[Toolkit] = [*toolkits, *(each for each in more if each not in toolkits)]
        assert self._llm_adapter is not None
        reply = await self._llm_adapter.next(
            context=chat_context, room=self.room, toolkits=tools, tool_adapter=self._tool_adapter
        )
        if not isinstance(reply, str) or not reply.strip():
            return self._not_answered(saved, "nothing to say")
        attached = [path for kit in tools for tool in kit.tools if isinstance(tool, AttachFile) for path in tool.paths]
        arguments = {"message": saved, "reply": reply} | ({"attachments": attached} if attached else {})
        sent = await call(self.send_reply_message, **arguments)
        return {"answered": True, "message_id": sent["id"] if isinstance(sent, Mapping) else answer_id}

    async def create_reply_email_message(
        self,
        *,
        message: Json,
        from_address: str,
        body: str,
        attachments: Sequence[str] | None = None,
        reply_all: bool | None = None,
    ) -> EmailMessage:
        """Return the answer to a saved mail: subject, recipients, References, an HTML part, the files of the room attached."""
        return answer_to(
            message,
            from_address=from_address,
            body=body,
            message_id=self._answer_id(message),
            reply_all=self._reply_all if reply_all is None else reply_all,
            allowed=self._whitelist,
            files=await self._files(attachments or ()),
            automatic=self._auto_submitted,
        )

    async def send_reply_message(
        self,
        *,
        message: Json,
        reply: str,
        attachments: Sequence[str] | None = None,
        reply_all: bool | None = None,
    ) -> Json:
        """Save an answer and put it into the outbox; return it as JSON. It is sent at once, or when the SMTP server takes
        it."""
        arguments: Json = {"message": message, "from_address": self._email_address, "body": reply}
        if attachments:
            arguments["attachments"] = attachments
        if reply_all is not None:
            arguments["reply_all"] = reply_all
        # MeshAgent's is a plain function, and so are overrides of it.
        created: EmailMessage = await call(self.create_reply_email_message, **arguments)
        return await self._send(created)

    async def create_email_message(
        self,
        *,
        to_address: str,
        from_address: str,
        subject: str,
        body: str,
        attachments: Sequence[str] | None = None,
    ) -> EmailMessage:
        """Return a new mail. Raises InvalidRequestError for an address."""
        message = new_mail(
            sender=from_address,
            to=[to_address],
            subject=subject,
            body=body,
            message_id=message_id_for(secrets.token_hex(20), from_address.rpartition("@")[2]),
            files=await self._files(attachments or ()),
        )
        if self._auto_submitted:
            message["Auto-Submitted"] = "auto-generated"
        message["X-Loop"] = from_address
        return message

    async def start_thread(
        self,
        *,
        to_address: str,
        subject: str,
        body: str,
        from_address: str | None = None,
        attachments: Sequence[str] | None = None,
    ) -> Json:
        """Write to somebody who has not written before; return the mail as JSON. Answers to it are of its thread."""
        created = await self.create_email_message(
            to_address=to_address,
            from_address=from_address or self._email_address,
            subject=subject,
            body=body,
            attachments=attachments,
        )
        return await self._send(created)

    def render_markdown(self, body: str) -> str | None:
        """Return the HTML part for a text in Markdown; None when the libraries of the extra `mail` are missing."""
        return from_markdown(body)

    async def _send(self, created: EmailMessage) -> Json:
        content = as_bytes(created)
        if self._dkim is not None:
            content = self._dkim.sign(content)
        saved: Json = await call(self.save_email_message, content=content, role="agent")
        await self._post(saved)
        return saved

    async def _post(self, saved: Json) -> None:
        if self._outbox is None:
            raise RoomError(f"agent {self.name!r} is not started")
        recipients = [each for each in (*(saved.get("to") or ()), *(saved.get("cc") or ())) if is_address(each)]
        await self._outbox.post(
            path=f"{saved['path']}/message.eml",
            message_id=saved["id"],
            mail_from=self._email_address,
            recipients=recipients,
        )

    async def _files(self, paths: Sequence[str]) -> list[File]:
        storage = self.room.storage
        return [File(path.rpartition("/")[2], (await storage.download(path=path)).data) for path in paths]

    def _not_answered(self, saved: Json, reason: str) -> Json:
        logger.info("a mail is not answered", extra={"mail": saved["id"], "reason": reason})
        return {"answered": False, "reason": reason}

    def _answer_id(self, message: Mapping[str, Any]) -> str:
        key = f"{self._email_address}\n{message['id']}"
        return message_id_for(key, self._email_address.rpartition("@")[2])

    def _make_id(self, mail: Mail) -> str:
        """An id for a mail without one: the same for all attempts to process it."""
        job = current_job()
        key = idempotency_key(self.room.room_name, job.leased) if job is not None else secrets.token_hex(20)
        return message_id_for(key, mail.sender.address.rpartition("@")[2] or self._domain)

    def _reason_against(self, mail: Mail) -> str | None:
        return reason_against(mail, own=[self._email_address], whitelist=self._whitelist)


def content_in(message: Any) -> bytes:
    """Return the mail in a message of a queue. Raises InvalidRequestError when there is none."""
    encoded = message.get("base64") if isinstance(message, Mapping) else None
    if not isinstance(encoded, str):
        raise InvalidRequestError("base64", "expected a mail in base64")
    try:
        return base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        raise InvalidRequestError("base64", "expected a mail in base64") from None
