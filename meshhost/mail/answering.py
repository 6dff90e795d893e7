"""Whether a program may answer a mail: RFC 3834, and what providers and mailing lists do beside it.

An answer to a mail that no person waits for is at best noise; at worst it is answered by another program, and the two go on for
ever. So these are never answered: reports and bounces (an empty return path), what says that it was sent automatically,
mailing lists and bulk mail, addresses of programs, mails that come from the mailbox itself or passed it before, and mails that
are not addressed to it. `reason_against` returns why in a few words, which are shown and counted, or None. Pure.
"""

import re
from collections.abc import Iterable, Sequence

from meshhost.mail.addresses import address_key, is_address, mailbox_keys, matches
from meshhost.mail.parsing import Mail

__all__ = ["LOOP_HEADER", "REASONS", "reason_against"]

LOOP_HEADER = "x-loop"
"""Answers carry it with the address of the mailbox; a mail that comes back with it went in a circle."""

REASONS = (
    "no sender",
    "bounce",
    "report",
    "automatic",
    "bulk",
    "list",
    "loop",
    "own address",
    "program",
    "not addressed",
    "not allowed",
    "too many",
)

_PRECEDENCES = frozenset({"bulk", "junk", "list", "auto_reply", "auto-reply"})
# Of programs that send what nobody may answer. A person may be called news or support, so these are not here.
_PROGRAM = re.compile(
    r"(mailer-?daemon|postmaster|mail-?daemon|double-bounce|bounces?([+=._-].*)?|.*[._-]bounces?([+=].*)?|"
    r"(do-?not|don-?t|no)[._-]?reply([+=._-].*)?|owner-.*|.*-(owner|request)|listserv|majordomo|mailman)",
    re.IGNORECASE,
)
_SUBJECTS = re.compile(
    r"(undeliver(ed|able)|delivery (status notification|failure|has failed)|returned mail|failure notice|"
    r"mail delivery (failed|failure|system)|auto(matic)?[ -]?(reply|response|antwort)|automatische antwort|"
    r"out of (the )?office|abwesenheit)",
    re.IGNORECASE,
)
_RE = re.compile(r"\s*((re|aw|sv|antw|fwd?|wg)\s*(\[\d+\])?\s*:\s*)*", re.IGNORECASE)
# RFC 5321 lets a server give up on a mail that passed about as many.
_MOST_HOPS = 50


def reason_against(
    mail: Mail,
    *,
    own: Sequence[str],
    whitelist: Iterable[str] | None = None,
    return_path: str | None = None,
) -> str | None:
    """Return why a program whose addresses are `own` must not answer, one of REASONS; None when it may.

    `return_path` is the sender of the envelope, "" or "<>" for an empty one; None takes that of the header. `whitelist` are the
    addresses that may be answered (`addresses.matches`); None means all.
    """
    if return_path is None:
        return_path = mail.first("return-path")
    return (
        _of_envelope(mail, return_path)
        or _of_headers(mail)
        or _of_circles(mail, own)
        or _of_sender(mail)
        or _of_recipients(mail, own, whitelist)
    )


def _of_envelope(mail: Mail, return_path: str | None) -> str | None:
    if return_path is not None and return_path.strip() in ("", "<>"):
        return "bounce"
    if mail.is_report:
        return "report"
    return None if is_address(_answered(mail)) else "no sender"


def _of_headers(mail: Mail) -> str | None:
    automatic = [value.partition(";")[0].strip().lower() for value in mail.all("auto-submitted")]
    if any(each != "no" for each in automatic):
        return "automatic"
    if any(mail.first(name) is not None for name in ("x-autoreply", "x-autorespond", "x-auto-reply-from")):
        return "automatic"
    suppressed = (mail.first("x-auto-response-suppress") or "").lower()
    if any(each.strip() in ("all", "oof", "autoreply") for each in suppressed.split(",")):
        return "automatic"
    if any(value.strip().lower() in _PRECEDENCES for value in mail.all("precedence")):
        return "bulk"
    if any(name.startswith("list-") for name, _ in mail.headers) or mail.first("mailing-list") is not None:
        return "list"
    if _SUBJECTS.match(_RE.sub("", mail.subject, count=1)) and _RE.match(mail.subject).group() == "":  # type: ignore[union-attr]
        # A person who answers such a mail keeps its subject, behind a "Re:".
        return "automatic"
    return None


def _of_circles(mail: Mail, own: Sequence[str]) -> str | None:
    mine = {address_key(each) for each in own}
    if any(address_key(value) in mine for value in mail.all(LOOP_HEADER)):
        return "loop"
    if (
        sum(address_key(value) in mine for value in mail.all("delivered-to")) > 1
        or len(mail.all("received")) > _MOST_HOPS
    ):
        return "loop"
    written = [mail.sender, *mail.reply_to]
    return "own address" if any(mine.intersection(mailbox_keys(each.address)) for each in written) else None


def _of_sender(mail: Mail) -> str | None:
    locals_ = {each.address.rpartition("@")[0] for each in (mail.sender, *mail.reply_to)}
    return "program" if any(_PROGRAM.fullmatch(each) for each in locals_) else None


def _of_recipients(mail: Mail, own: Sequence[str], whitelist: Iterable[str] | None) -> str | None:
    named = [each.address for each in mail.addressed_to]
    named += [value for name in ("delivered-to", "x-original-to", "envelope-to") for value in mail.all(name)]
    mine = {address_key(each) for each in own}
    if named and not any(mine.intersection(mailbox_keys(each)) for each in named):
        return "not addressed"
    if whitelist is not None:
        allowed = list(whitelist)
        written = [each for each in (mail.sender, *mail.reply_to) if each.address]
        if not all(matches(each.address, allowed) for each in written):
            return "not allowed"
    return None


def _answered(mail: Mail) -> str:
    return (mail.reply_to or (mail.sender,))[0].address
