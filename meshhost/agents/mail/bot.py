"""`MailBot`: MailWorker with the defaults of MeshAgent 0.56, which takes mails from the queue that is named as its address."""

from collections.abc import Mapping, Sequence
from typing import Any

from meshhost.agents.adapter import LLMAdapter
from meshhost.agents.mail.configuration import SmtpConfiguration
from meshhost.agents.mail.worker import MailWorker
from meshhost.errors import InvalidRequestError
from meshhost.room.requirements import Requirement
from meshhost.tools.toolkit import Toolkit

__all__ = ["MailBot"]


class MailBot(MailWorker):
    """Answers the mails of a mailbox. Further arguments are those of MailWorker.

    With a `toolkit_name` it offers the room a tool `new_email_thread`. `annotations` are kept for programs that read them.
    `skill_dirs` are MeshAgent's and not offered here: a value is refused.
    """

    def __init__(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        llm_adapter: LLMAdapter[Any],
        email_address: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
        domain: str | None = None,
        smtp: SmtpConfiguration | None = None,
        toolkit_name: str | None = None,
        whitelist: Sequence[str] | None = None,
        reply_all: bool = False,
        enable_attachments: bool = True,
        skill_dirs: Sequence[str] | None = None,
        annotations: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        if skill_dirs:
            raise InvalidRequestError("skill_dirs", "skills are not offered: put what they say into rules")
        super().__init__(
            queue=queue or email_address,
            name=name,
            title=title,
            description=description,
            requires=requires,
            llm_adapter=llm_adapter,
            toolkits=toolkits,
            rules=rules or ["Answer in plain text or Markdown; write neither JSON nor HTML."],
            email_address=email_address,
            domain=domain,
            smtp=smtp,
            toolkit_name=toolkit_name,
            whitelist=whitelist,
            reply_all=reply_all,
            enable_attachments=enable_attachments,
            **more,
        )
        self.annotations = dict(annotations or {})
