"""Agents that answer mail: `MailWorker` and `MailBot`, with the names and arguments of both generations of MeshAgent.

`worker` takes mails from a queue of the room and answers them; `bot` is the same with the defaults of MeshAgent 0.56. What was
received and written is kept in the room's storage (`archive`), answers leave through a queue of their own (`outbox`), and
`brake` stops an exchange that no person takes part in. Mails come into the queue by the room server's SMTP listener, by a hook,
or from a mailbox that `imap` polls. What a mail is, and when it may be answered, is `meshhost.mail`.
"""

from meshhost.agents.mail.bot import MailBot
from meshhost.agents.mail.configuration import SmtpConfiguration, room_address
from meshhost.agents.mail.imap import ImapMailbox
from meshhost.agents.mail.tools import AttachFile, NewEmailThread, NewEmailThreadWithAttachments
from meshhost.agents.mail.worker import MailThreadContext, MailWorker
from meshhost.mail.signing import DkimKey

__all__ = [
    "AttachFile",
    "DkimKey",
    "ImapMailbox",
    "MailBot",
    "MailThreadContext",
    "MailWorker",
    "NewEmailThread",
    "NewEmailThreadWithAttachments",
    "SmtpConfiguration",
    "room_address",
]
