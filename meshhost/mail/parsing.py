"""Any bytes as a mail, with what a mail client shows of it.

Mails are the worst input there is: wrong encodings, parts that never end, headers with bytes of an unknown character set,
thousands of nested parts. `parse_mail` never raises for the content: what cannot be read is left out or shown as it came, and
`Mail` has plain values only. It uses Python's parser with its older, forgiving policy, since the newer one parses headers when
they are read and raises there for some damaged ones; every look at a header or payload here is guarded once, in `_safely`.

What is shown: of alternatives the plain text (else the HTML as text), and the texts of a mixed mail one after the other; all
else is an attachment, also a mail within the mail. Pure.
"""

import codecs
import email.parser
import email.policy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any, TypeVar

from meshhost.mail.addresses import Address, is_address
from meshhost.mail.attachments import unique_names
from meshhost.mail.markup import as_text

__all__ = ["Attachment", "Mail", "mail_of", "message_ids", "parse_mail", "parse_message"]

T = TypeVar("T")

_MOST_PARTS = 1000
_MOST_DEPTH = 50
_MOST_MULTIPARTS = 100
_MOST_HEADERS = 2000
_MOST_VALUE = 64 * 1024
_MOST_IDS = 200
_MOST_ADDRESSES = 1000
_ID = re.compile(r"<[^<>\s]{1,996}>")
_BARE_ID = re.compile(r"[^\s<>@\"(),;]+@[^\s<>@\"(),;]+")
_FOLD = re.compile(r"\r?\n[ \t]*|\r")
# Bytes that came without a character set are kept by the parser as these.
_ESCAPED = re.compile("[\udc80-\udcff]")
_EXTENSIONS = {
    "application/octet-stream": "bin",
    "message/rfc822": "eml",
    "text/calendar": "ics",
    "text/html": "html",
    "text/plain": "txt",
}
# Codecs of Python that no mail is written in, of which some take very long for much text; and what programs claim of anything.
_NO_CHARSETS = frozenset({"ascii", "idna", "punycode", "raw-unicode-escape", "unicode-escape"})
# Programs name a character set and use a larger one; mail clients read these names as browsers do
# (https://encoding.spec.whatwg.org/#names-and-labels).
_SUPERSETS = {
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "tis-620": "cp874",
}


_NOBODY = Address("", "")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not shown as text. `name` is safe as a file name, and no other attachment of the mail has it."""

    name: str
    content_type: str
    data: bytes = field(repr=False)
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as plain values. `headers` are all of them in order, names in lower case and values decoded.

    `text` is what a client shows; `html` is the HTML part as it came, which nobody made harmless yet. `is_report` is whether it
    is a report (RFC 6522), such as a bounce; `report` has the fields of a delivery status.
    """

    message_id: str | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    sender: Address = _NOBODY
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    subject: str = ""
    date: datetime | None = None
    text: str = ""
    html: str | None = None
    attachments: tuple[Attachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/plain"
    is_multipart: bool = False
    is_report: bool = False
    report: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for each, value in self.headers if each == name]

    def first(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return next((value for each, value in self.headers if each == name), None)

    @property
    def addressed_to(self) -> tuple[Address, ...]:
        """All in To and Cc."""
        return (*self.to, *self.cc)


def parse_message(content: bytes) -> Message:
    """Return the bytes as a message of Python's library. Never raises for the content.

    It may take a second for a mail of megabytes: call it in a thread.
    """
    # The parser compares each line with the borders of all parts around it.
    if content.lower().count(b"multipart/") > _MOST_MULTIPARTS:
        return email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(content)
    try:
        return email.parser.BytesParser(policy=email.policy.compat32).parsebytes(content)
    except (RecursionError, ValueError, LookupError, AssertionError, IndexError, AttributeError, TypeError):
        # Nested thousands of times, or a bug of the parser: headers are read, and the rest is one text.
        return email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(content)


def parse_mail(content: bytes) -> Mail:
    """Return what the bytes say. Never raises for the content."""
    return mail_of(parse_message(content))


def mail_of(message: Message) -> Mail:
    """Return what a message of Python's library says, whatever policy it has. Never raises for the content."""
    headers = _headers(message)
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    shown = _Shown()
    shown.add(message, 0)
    ids = message_ids(" ".join(values.get("message-id", [])[:1]))
    senders = _addresses(message, "from") or _addresses(message, "sender")
    content_type = _content_type(message)
    return Mail(
        message_id=ids[0] if ids else None,
        in_reply_to=next(iter(message_ids(" ".join(values.get("in-reply-to", [])))), None),
        references=tuple(message_ids(" ".join(values.get("references", [])))),
        sender=senders[0] if senders else _NOBODY,
        reply_to=_addresses(message, "reply-to"),
        to=_addresses(message, "to"),
        cc=_addresses(message, "cc"),
        subject=" ".join(" ".join(values.get("subject", [])[:1]).split()),
        date=_date(values.get("date", [""])[0]),
        text=shown.text(),
        html=shown.html(),
        attachments=shown.attachments(),
        headers=headers,
        content_type=content_type,
        is_multipart=message.is_multipart(),
        is_report=content_type == "multipart/report" or shown.status is not None,
        report=() if shown.status is None else shown.status,
    )


def message_ids(text: str) -> list[str]:
    """Return the message ids in a header, with their angle brackets, each once, in order."""
    found = _ID.findall(text) or [f"<{each}>" for each in _BARE_ID.findall(text)]
    return list(dict.fromkeys(found))[-_MOST_IDS:]


def _safely(look: Callable[[], T], otherwise: T) -> T:
    """Look at something of a message; what a damaged one raises counts as nothing there."""
    try:
        return look()
    except Exception:  # noqa: BLE001 - the library raises almost anything here, from IndexError to UnicodeError
        return otherwise


def _headers(message: Message) -> tuple[tuple[str, str], ...]:
    raw = list(message.raw_items())[:_MOST_HEADERS]
    return tuple((str(name).lower(), _decoded(_raw(value))) for name, value in raw)


def _raw(value: Any) -> str:
    return _FOLD.sub(" ", str(value)[:_MOST_VALUE]).strip()


def _decoded(value: str) -> str:
    """A header as text: encoded words decoded, bytes without a character set as UTF-8, no control characters."""
    text = _safely(lambda: _words(value), value) if "=?" in value else value
    return "".join(each if each.isprintable() or each == " " else " " for each in _clean(_utf8(text))).strip()


def _words(value: str) -> str:
    """A header with its encoded words decoded, as much of them as can be."""
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, UnicodeError, HeaderParseError):
        pieces = decode_header(value)
        return "".join(each if isinstance(each, str) else _decode(each, charset) for each, charset in pieces)


def _utf8(text: str) -> str:
    """A text with the bytes in it that came without a character set read as UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace") if _ESCAPED.search(text) else text


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _addresses(message: Message, name: str) -> tuple[Address, ...]:
    raw = [_raw(value) for each, value in message.raw_items() if str(each).lower() == name]
    none: list[tuple[str, str]] = []
    pairs = _safely(lambda: getaddresses(raw), none)
    found = [Address(_decoded(label), _decoded(address)) for label, address in pairs[:_MOST_ADDRESSES]]
    if not any(is_address(each.address) for each in found):  # what the library gave up on may still name some
        texts = [_decoded(each) for each in raw]
        found = [Address("", each) for text in texts for each in _BARE_ID.findall(text)]
    return tuple(each for each in found if is_address(each.address))


def _date(value: str) -> datetime | None:
    found = _safely(lambda: parsedate_to_datetime(value), None)
    if found is None:
        return None
    return _safely(lambda: (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC), None)


def _content_type(part: Message) -> str:
    return _safely(lambda: str(part.get_content_type()), "text/plain")


class _Shown:
    """What is shown of the parts of a mail: collected by `add`, part after part."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._htmls: list[str] = []
        self._files: list[tuple[str | None, str, bytes, str | None]] = []
        self._parts = 0
        self.status: tuple[tuple[str, str], ...] | None = None

    def add(self, part: Message, depth: int) -> None:
        """Add a part with all that is in it."""
        self._parts += 1
        if self._parts > _MOST_PARTS or depth > _MOST_DEPTH:
            return
        kind = _content_type(part)
        if kind == "message/delivery-status":
            self.status = self.status or _status(part)
            self._attach(part, kind, _flat(part))
        elif kind.startswith("message/"):
            self._attach(part, kind, _inner(part))
        elif not part.is_multipart():
            self._add_leaf(part, kind)
        elif kind == "multipart/alternative":
            self._add_alternatives(_children(part), depth)
        else:
            for child in _children(part):
                self.add(child, depth + 1)

    def _add_alternatives(self, children: Sequence[Message], depth: int) -> None:
        """Of several forms of the same, one is shown: the plain one, else the HTML. Both are kept."""
        texts, htmls = len(self._texts), len(self._htmls)
        for child in children:
            self.add(child, depth + 1)
        if len(self._htmls) > htmls and len(self._texts) > texts:
            # The HTML says the same as the text before it.
            plain = [each for each in self._texts[texts:] if each.strip()]
            if plain and plain[0] not in [as_text(each) for each in self._htmls[htmls:]]:
                self._texts[texts:] = plain[:1]

    def _add_leaf(self, part: Message, kind: str) -> None:
        is_file = _disposition(part) == "attachment" or _filename(part) is not None
        # A multipart that has no parts: a border is missing.
        if kind.startswith("multipart/") or (kind == "text/plain" and not is_file):
            self._texts.append(_text(part))
        elif kind == "text/html" and not is_file:
            markup = _text(part)
            self._htmls.append(markup)
            self._texts.append(as_text(markup))
        elif kind.startswith("text/") and not is_file and not self._texts:
            self._texts.append(_text(part))
        else:
            self._attach(part, kind, _bytes(part))

    def _attach(self, part: Message, kind: str, data: bytes) -> None:
        name = _filename(part)
        if name is None and kind == "message/rfc822":
            inner = _safely(lambda: part.get_payload(0), None)
            subject = _safely(lambda: _decoded(_raw(inner["subject"] or "")), "") if isinstance(inner, Message) else ""
            name = f"{subject or 'message'}.eml"
        if name is None:
            extension = _EXTENSIONS.get(kind) or re.sub(r"[^a-z0-9]", "", kind.rpartition("/")[2].lower()) or "bin"
            name = f"attachment.{extension[:20]}"
        content_id = _safely(lambda: _decoded(_raw(part["content-id"] or "")).strip("<> ") or None, None)
        self._files.append((name, kind, data, content_id))

    def text(self) -> str:
        return "\n\n".join(each.strip("\n") for each in self._texts if each.strip())

    def html(self) -> str | None:
        return "\n".join(self._htmls) or None

    def attachments(self) -> tuple[Attachment, ...]:
        names = unique_names(each[0] for each in self._files)
        files = zip(names, self._files, strict=True)
        return tuple(Attachment(name, kind, data, content_id) for name, (_, kind, data, content_id) in files)


def _children(part: Message) -> Sequence[Message]:
    payload: Any = _safely(lambda: part.get_payload(), None)  # noqa: PLW0108 - it is overloaded
    return [each for each in payload if isinstance(each, Message)] if isinstance(payload, list) else []


def _disposition(part: Message) -> str:
    return _safely(lambda: (_raw(part["content-disposition"] or "").partition(";")[0]).strip().lower(), "")


def _filename(part: Message) -> str | None:
    # The library replaces bytes without a character set before it looks for the name.
    plain = Message()
    for name, value in part.raw_items():
        if str(name).lower() in ("content-disposition", "content-type"):
            plain[str(name)] = _utf8(_raw(value))
    found = _safely(plain.get_filename, None)
    return _decoded(_raw(found)) or None if found else None


def _bytes(part: Message) -> bytes:
    data = _safely(lambda: part.get_payload(decode=True), None)
    if isinstance(data, bytes):
        return data
    return _safely(lambda: str(part.get_payload()).encode(errors="surrogateescape"), b"")


def _text(part: Message) -> str:
    data = _bytes(part)
    return _lines(_decode(data, _safely(part.get_content_charset, None)))


def _decode(data: bytes, charset: str | None) -> str:
    """Bytes as a text: in this character set if that can be, else in UTF-8, else as much as this character set explains."""
    named = _codec(charset)
    for each in (named, "utf-8"):
        try:
            if each is not None:
                return data.decode(each)
        except ValueError:
            continue
    return data.decode(named or "cp1252", errors="replace")


def _codec(charset: str | None) -> str | None:
    """The name of the codec of a character set; None for one that is unknown, or is none of texts."""
    try:
        codec = codecs.lookup((charset or "").strip())
        "".encode(codec.name)
    except (LookupError, ValueError, TypeError, UnicodeError):
        return None
    return None if codec.name in _NO_CHARSETS else _SUPERSETS.get(codec.name, codec.name)


def _lines(text: str) -> str:
    return _clean(text.replace("\r\n", "\n").replace("\r", "\n"))


def _inner(part: Message) -> bytes:
    """A mail within the mail, as bytes."""
    children = _children(part)
    return _safely(children[0].as_bytes, b"") if children else _bytes(part)


def _flat(part: Message) -> bytes:
    return _safely(lambda: b"\n".join(each.as_bytes() for each in _children(part)), b"") or _bytes(part)


def _status(part: Message) -> tuple[tuple[str, str], ...]:
    """The fields of a delivery status, names in lower case: those of the whole first, then those of each recipient."""
    return tuple(_fields(part))


def _fields(part: Message) -> Iterator[tuple[str, str]]:
    for block in _children(part):
        for name, value in list(block.raw_items())[:_MOST_HEADERS]:
            yield str(name).lower(), _decoded(_raw(value))
