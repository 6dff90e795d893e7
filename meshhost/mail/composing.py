"""Mails that a program writes: headers that no text can break, an HTML part beside the plain one, attachments.

Whatever goes into a header here comes from a model or from somebody's mail, so line ends are removed, addresses are checked and
domains are written as DNS has them. A mail gets its Message-ID when it is composed and keeps it through all tries to send it,
so that somebody who receives it twice can tell. `as_bytes` writes it with the line ends of SMTP. Pure.
"""

import email.policy
import hashlib
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.mail.addresses import Address, address_key, is_address, mailbox_keys, matches
from meshhost.mail.answering import LOOP_HEADER
from meshhost.mail.attachments import unique_names
from meshhost.mail.markup import from_markdown
from meshhost.mail.threads import chain_for_answer

__all__ = ["File", "answer_to", "as_bytes", "message_id_for", "new_mail", "recipients_of_answer"]

CORRELATION_HEADER = "Meshagent-Correlation-ID"
_MOST_SUBJECT = 500
_MOST_RECIPIENTS = 50
_POLICY = email.policy.SMTP.clone(max_line_length=78, cte_type="7bit")
_POLICY_UTF8 = email.policy.SMTPUTF8.clone(max_line_length=78, cte_type="7bit")


@dataclass(frozen=True, slots=True)
class File:
    """A file to attach."""

    name: str
    data: bytes
    content_type: str | None = None


def message_id_for(key: str, domain: str) -> str:
    """Return the Message-ID of the answer that has this key: the same for all attempts to write it."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{_domain(domain)}>"


def new_mail(
    *,
    sender: str,
    to: Sequence[str | Address],
    subject: str,
    body: str,
    cc: Sequence[str | Address] = (),
    message_id: str | None = None,
    files: Iterable[File] = (),
    with_html: bool = True,
    now: datetime | None = None,
) -> EmailMessage:
    """Return a mail. Raises InvalidRequestError for an address that is none, or when there is no recipient."""
    message = EmailMessage(policy=_POLICY)
    own = _address(sender, "from_address")
    message["Message-ID"] = message_id or make_msgid(domain=_domain(own.address.rpartition("@")[2]))
    message["Date"] = format_datetime(now or datetime.now(UTC))
    message["From"] = _header(own)
    receivers = [_address(each, "to") for each in to]
    if not receivers:
        raise InvalidRequestError("to", "expected at least one address")
    message["To"] = [_header(each) for each in receivers]
    if cc:
        message["Cc"] = [_header(_address(each, "cc")) for each in cc]
    message["Subject"] = one_line(subject)[:_MOST_SUBJECT]
    _fill(message, body, files, with_html=with_html)
    return message


def answer_to(
    message: Mapping[str, Any],
    *,
    from_address: str,
    body: str,
    message_id: str | None = None,
    reply_all: bool = False,
    allowed: Iterable[str] | None = None,
    files: Iterable[File] = (),
    automatic: bool = True,
    with_html: bool = True,
) -> EmailMessage:
    """Return an answer to a mail, given as JSON (`message_to_json` of MailWorker).

    With `automatic` it says that a program wrote it (RFC 3834). Raises InvalidRequestError when nobody can be answered.
    """
    to, cc = recipients_of_answer(message, own=[from_address], reply_all=reply_all, allowed=allowed)
    subject = one_line(str(message.get("subject") or ""))
    answer = new_mail(
        sender=from_address,
        to=to,
        cc=cc,
        subject=subject if subject.lower().startswith("re:") else f"RE: {subject}",
        body=body,
        message_id=message_id,
        files=files,
        with_html=with_html,
    )
    chain = chain_for_answer(message)
    if chain:
        answer["In-Reply-To"] = str(message["id"]) if message["id"] in chain else chain[-1]
        answer["References"] = " ".join(chain)
    if automatic:
        answer["Auto-Submitted"] = "auto-replied"
    answer[LOOP_HEADER.title()] = from_address
    correlation = message.get("correlation_id")
    if isinstance(correlation, str) and correlation:
        answer[CORRELATION_HEADER] = one_line(correlation)[:_MOST_SUBJECT]
    return answer


def recipients_of_answer(
    message: Mapping[str, Any], *, own: Sequence[str], reply_all: bool = False, allowed: Iterable[str] | None = None
) -> tuple[list[str], list[str]]:
    """Return to whom an answer goes, and who gets a copy: with `reply_all` everybody in To and Cc but ourselves.

    Of the copies only `allowed` ones are kept (None: all).
    """
    to = _addresses(message.get("reply_to") or message.get("from"))[:1]
    if not reply_all:
        return to, []
    patterns = None if allowed is None else list(allowed)
    taken = {address_key(each) for each in (*own, *to)}
    copies: list[str] = []
    for each in [*_addresses(message.get("to")), *_addresses(message.get("cc"))]:
        if taken.intersection(mailbox_keys(each)) or (patterns is not None and not matches(each, patterns)):
            continue
        taken.add(address_key(each))
        copies.append(each)
    return to, copies[: _MOST_RECIPIENTS - 1]


def as_bytes(message: EmailMessage) -> bytes:
    """Return the bytes to send; headers are in UTF-8 when an address needs it (RFC 6532)."""
    named = [str(message[name] or "") for name in ("From", "To", "Cc")]
    return message.as_bytes(policy=_POLICY if all(_needs_no_utf8(each) for each in named) else _POLICY_UTF8)


def one_line(text: str) -> str:
    """Return a text that can be the value of a header: without line ends and other control characters."""
    cleaned = text.encode(errors="replace").decode()
    return " ".join("".join(each if each.isprintable() else " " for each in cleaned).split())


def _needs_no_utf8(header: str) -> bool:
    return all(each.rpartition("@")[0].rpartition("<")[2].isascii() for each in header.split(",") if "@" in each)


def _fill(message: EmailMessage, body: str, files: Iterable[File], *, with_html: bool) -> None:
    text = body.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    message.set_content(text if text.endswith("\n") else f"{text}\n")
    markup = from_markdown(text) if with_html else None
    if markup:
        message.add_alternative(markup, subtype="html")
    found = list(files)
    for each, name in zip(found, unique_names(one.name for one in found), strict=True):
        kind = each.content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        if main in ("multipart", "message") or not sub:
            main, sub = "application", "octet-stream"
        message.add_attachment(each.data, maintype=main, subtype=sub, filename=name)


def _addresses(value: Any) -> list[str]:
    """The addresses in a member of a mail as JSON: a text or a list of them, each with or without a name."""
    from email.utils import getaddresses

    texts = [value] if isinstance(value, str) else [each for each in value or () if isinstance(each, str)]
    plain = [each for each in texts if is_address(each)]
    named = [address for _, address in getaddresses([each for each in texts if not is_address(each)])]
    return [each for each in (*plain, *named) if is_address(each)]


def _address(value: str | Address, field: str) -> Address:
    if isinstance(value, str):
        found = _addresses(value)
        if not found or not value.isprintable():
            raise InvalidRequestError(field, f"expected an address such as ann@example.com, got {value[:100]!r}")
        name = one_line(value.partition("<")[0]).strip('" ') if "<" in value else ""
        return Address(name, found[0])
    if not is_address(value.address):
        raise InvalidRequestError(field, f"expected an address such as ann@example.com, got {value.address[:100]!r}")
    return value


def _header(address: Address) -> HeaderAddress:
    local, _, domain = address.address.rpartition("@")
    try:
        return HeaderAddress(one_line(address.name), username=local, domain=_domain(domain))
    except (ValueError, IndexError):
        raise InvalidRequestError("", f"cannot write to the address {address.address[:100]!r}") from None


def _domain(domain: str) -> str:
    try:
        return domain if domain.isascii() else domain.encode("idna").decode()
    except UnicodeError:
        raise InvalidRequestError("domain", f"expected the name of a domain, got {domain[:100]!r}") from None
