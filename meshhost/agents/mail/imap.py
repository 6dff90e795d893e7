"""Polls a mailbox by IMAP and puts its mails into a queue of the room.

A mail goes into the queue before it is marked as seen, and under an id made of the mailbox, its UIDVALIDITY and the mail's UID,
so one that is read again after a crash is stored once. Which UID was the last is kept in the room's storage, beside
UIDVALIDITY: when that changes, the server counts anew, and the mails that nobody has seen are taken. So no mail is lost, and
none is marked that is not stored. The library, imap-tools of the extra `mail`, blocks; it runs in threads, one call at a time.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import random
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from meshhost.backoff import Backoff
from meshhost.errors import InvalidRequestError, NotFoundError, SettingsError, TooLargeError

if TYPE_CHECKING:
    from imap_tools.mailbox import BaseMailBox

    from meshhost.room.client import RoomClient

__all__ = ["ImapMailbox", "poll"]

logger = logging.getLogger(__name__)

_FOLDER = ".emails/imap"
_AT_ONCE = 20
_ID_SECONDS = 7 * 24 * 3600.0
_BACKOFF = Backoff(first_delay=5.0, max_delay=600.0)


@dataclass(slots=True)
class ImapMailbox:
    """A mailbox on an IMAP server. `tls` is from the first byte (port 993), `starttls` on the usual port, or `none`.

    `poll_seconds` pass between two looks. With `mark_seen` what was stored is marked as seen. Mails of more than `max_bytes`
    and those that are too large for the queue are left where they are and logged. `ca_file` is the certificate of the
    server's authority, when the system does not know it.
    """

    hostname: str
    username: str
    password: str = field(repr=False)
    folder: str = "INBOX"
    port: int | None = None
    tls: str = "tls"
    poll_seconds: float = 60.0
    mark_seen: bool = True
    max_bytes: int = 25 * 1024 * 1024
    seconds: float = 60.0
    ca_file: str | None = None
    _draining: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tls not in ("tls", "starttls", "none"):
            raise InvalidRequestError("tls", f"expected tls, starttls or none, got {self.tls!r}")
        if find_spec("imap_tools") is None:
            raise SettingsError("reading a mailbox needs a library more: pip install 'meshhost[mail]'")

    @property
    def key(self) -> str:
        """What names it: the same for every agent that reads it."""
        text = f"{self.hostname.lower()}\n{self.username}\n{self.folder}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def drain(self) -> None:
        """Look no more."""
        self._draining.set()


@dataclass(slots=True)
class _State:
    """`last` is the UID of the last mail that was stored. Of mails below `first` only those that nobody has seen are taken."""

    validity: int | None = None
    last: int = 0
    first: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """A look at the mailbox: its UIDVALIDITY, the mails that were fetched, and whether there are more."""

    validity: int
    first: int
    mails: list[tuple[int, bytes]]
    skipped: list[int]
    has_more: bool


async def poll(mailbox: ImapMailbox, *, room: "RoomClient", queue: str) -> None:
    """Put the mails of the mailbox into the queue, until it is drained. Raises RoomError when the room is lost for good."""
    mailbox._draining.clear()  # noqa: SLF001 - of this module
    failures = 0
    while not mailbox._draining.is_set():  # noqa: SLF001
        try:
            has_more = await _look(mailbox, room, queue)
            failures = 0
            pause = 0.0 if has_more else mailbox.poll_seconds
        except Exception as error:  # imaplib and imap-tools raise their own errors, ssl and socket theirs
            if room.is_closed:
                raise
            failures += 1
            pause = _BACKOFF.delay(failures, random.random)
            fields = {
                "mailbox": mailbox.hostname,
                "reason": f"{type(error).__name__}: {error}"[:300],
                "retry_in": pause,
            }
            logger.warning("a mailbox cannot be read", extra=fields)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await mailbox._draining.wait()  # noqa: SLF001


async def _look(mailbox: ImapMailbox, room: "RoomClient", queue: str) -> bool:
    """One look; return whether there is more to fetch at once."""
    state = await _load(mailbox, room)
    found = await asyncio.to_thread(_fetch, mailbox, state)
    if state.validity != found.validity:
        state = _State(found.validity, 0, found.first)
        await _store(mailbox, room, state)
    stored, skipped = [], list(found.skipped)
    for uid, content in found.mails:
        message: dict[str, Any] = {"base64": base64.b64encode(content).decode(), "imap": {"uid": uid}}
        message_id = f"imap:{mailbox.key}:{found.validity}:{uid}"
        try:
            await room.queues.send(queue, message, id=message_id, id_seconds=_ID_SECONDS)
        except (
            TooLargeError
        ):  # for the queue, which may take less than the mailbox: it must not hold up those behind it
            skipped.append(uid)
        else:
            stored.append(uid)
    if stored or skipped:
        state.last = max([state.last, *stored, *skipped])
        await _store(mailbox, room, state)
    if skipped:
        logger.warning(
            "mails are too large and stay in the mailbox", extra={"mailbox": mailbox.hostname, "uids": skipped}
        )
    if stored and mailbox.mark_seen:
        await asyncio.to_thread(_mark, mailbox, found.validity, stored)
    return found.has_more


def _fetch(mailbox: ImapMailbox, state: _State) -> _Found:
    """Blocks. Fetches without marking anything as seen."""
    with _logged_in(mailbox, readonly=True) as box:
        status = box.folder.status(mailbox.folder, ["UIDVALIDITY", "UIDNEXT"])
        validity, following = int(status["UIDVALIDITY"]), int(status["UIDNEXT"])
        first, last = (state.first, state.last) if state.validity == validity else (following, 0)
        # Of a mailbox that is new to us, the mails that nobody has seen, and everything that comes later.
        unseen = [int(each) for each in box.uids("UNSEEN")]
        later = [int(each) for each in box.uids(f"UID {max(first, last + 1)}:*")]
        uids = sorted(
            {each for each in unseen if each > last} | {each for each in later if each > last and each >= first}
        )
        some = uids[:_AT_ONCE]
        mails, skipped = [], []
        for uid in some:
            if _size(box, uid) > mailbox.max_bytes:
                skipped.append(uid)
            elif (content := _content(box, uid)) is not None:
                mails.append((uid, content))
        return _Found(validity, first, mails, skipped, len(uids) > len(some))


def _mark(mailbox: ImapMailbox, validity: int, uids: list[int]) -> None:
    """Blocks."""
    with _logged_in(mailbox, readonly=False) as box:
        if _validity(box, mailbox.folder) == validity:
            box.flag([str(uid) for uid in uids], r"\Seen", True)


@contextlib.contextmanager
def _logged_in(mailbox: ImapMailbox, *, readonly: bool) -> Any:
    import imap_tools

    context = ssl.create_default_context(cafile=mailbox.ca_file)
    made: Any
    if mailbox.tls == "tls":
        made = imap_tools.MailBox(mailbox.hostname, mailbox.port or 993, timeout=mailbox.seconds, ssl_context=context)
    elif mailbox.tls == "starttls":
        made = imap_tools.MailBoxStartTls(
            mailbox.hostname, mailbox.port or 143, timeout=mailbox.seconds, ssl_context=context
        )
    else:
        made = imap_tools.MailBoxUnencrypted(mailbox.hostname, mailbox.port or 143, timeout=mailbox.seconds)
    try:
        entered = made.login(mailbox.username, mailbox.password, initial_folder=None)
    except BaseException:
        made.client.shutdown()  # which the library leaves open
        raise
    with entered as box:
        box.folder.set(mailbox.folder, readonly=readonly)
        yield box


def _validity(box: "BaseMailBox", folder: str) -> int:
    return int(box.folder.status(folder, ["UIDVALIDITY"])["UIDVALIDITY"])


def _size(box: "BaseMailBox", uid: int) -> int:
    _, data = box.client.uid("fetch", str(uid), "(RFC822.SIZE)")
    text = b" ".join(each if isinstance(each, bytes) else each[0] for each in data if each)
    words = text.replace(b")", b" ").split()
    return int(words[words.index(b"RFC822.SIZE") + 1]) if b"RFC822.SIZE" in words else 0


def _content(box: "BaseMailBox", uid: int) -> bytes | None:
    """The mail; None when somebody deleted it meanwhile."""
    _, data = box.client.uid("fetch", str(uid), "(BODY.PEEK[])")
    return next((bytes(each[1]) for each in data if isinstance(each, tuple)), None)


async def _load(mailbox: ImapMailbox, room: "RoomClient") -> _State:
    try:
        value = json.loads((await room.storage.download(path=f"{_FOLDER}/{mailbox.key}.json")).data)
        return _State(int(value["uidvalidity"]), int(value["uid"]), int(value["first"]))
    except (NotFoundError, ValueError, KeyError, TypeError):
        return _State()


async def _store(mailbox: ImapMailbox, room: "RoomClient", state: _State) -> None:
    data = json.dumps({"uidvalidity": state.validity, "uid": state.last, "first": state.first}).encode()
    await room.storage.upload(path=f"{_FOLDER}/{mailbox.key}.json", data=data, overwrite=True)
