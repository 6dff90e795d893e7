"""An agent that answers mail: what arrives at its mailbox comes through a queue, and its answers leave by SMTP.

Shows: `MailBot`, a whitelist, and an override that decides what the model reads of a mail. Automatic mails, bounces and mailing
lists are not answered, and nobody gets more than a few answers in an hour.

Run it:       meshhost setup                                                       (once, for an API key)
              meshhost room serve --config meshhost.toml                           (with a table [mail]: docs/how-to/mail.md)
              meshhost mailbox create bot@example.com --room my-room --queue email
              meshhost service run agents/mail_worker/main.py --room my-room
Write to it:  any mail program, to bot@example.com

SMTP_HOSTNAME and SMTP_PORT say which server takes the answers, MAIL_ADDRESS the address of the agent. MAIL_WHITELIST are
addresses and domains that may write, separated by commas (empty: all). `make demo-mail` runs all of this in one go, offline.
"""

import asyncio
import logging
import os

from meshhost.agents.mail import MailBot
from meshhost.api.services import ServiceHost
from meshhost.openai.tools import OpenAIResponsesAdapter, OpenAIResponsesToolResponseAdapter
from meshhost.otel import otel_config

otel_config(service_name="mail-worker")
log = logging.getLogger("mail-worker")

host = ServiceHost()


@host.path("/mail", identity="mail-worker")
class Answerer(MailBot):
    def __init__(self):
        allowed = [each.strip() for each in os.getenv("MAIL_WHITELIST", "").split(",") if each.strip()]
        super().__init__(
            queue=os.getenv("MAIL_QUEUE", "email"),
            name="mail-worker",
            title="Mail worker",
            description="Answers the mails of its mailbox",
            llm_adapter=OpenAIResponsesAdapter(),
            tool_adapter=OpenAIResponsesToolResponseAdapter(),
            email_address=os.getenv("MAIL_ADDRESS", "bot@example.com"),
            whitelist=allowed or None,
            enable_attachments=False,
            rules=["You answer mails. Be friendly and brief: a few sentences of plain text."],
        )

    async def append_message_context(self, *, message, chat_context, thread):
        # The default gives the model everything that is known of a mail, as JSON. Here it reads what a person would.
        for each in reversed(thread):
            text = f"{each['subject']}\n\n{each['body']}"
            if each["role"] == "agent":
                chat_context.append_assistant_message(each["body"])
            else:
                chat_context.append_user_message(text)

    async def process_message(self, *, chat_context, message, toolkits):
        outcome = await super().process_message(chat_context=chat_context, message=message, toolkits=toolkits)
        log.info("mail done: %s", outcome)
        return outcome


if __name__ == "__main__":
    asyncio.run(host.run())
