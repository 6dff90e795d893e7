"""What may be answered, and how an answer is written."""

from pathlib import Path
from typing import Any

import pytest
import test.test_email

from meshhost.errors import InvalidRequestError
from meshhost.mail.addresses import address_key, is_address, matches
from meshhost.mail.answering import REASONS, reason_against
from meshhost.mail.composing import File, answer_to, as_bytes, message_id_for, new_mail, recipients_of_answer
from meshhost.mail.parsing import parse_mail
from meshhost.mail.threads import chain_for_answer, gather

DATA = Path(test.test_email.__file__).parent / "data"
BOT = "bot@example.com"


def mail(headers: str = "", *, sender: str = "ann@example.org", to: str = BOT, subject: str = "Hello") -> Any:
    return parse_mail(f"From: {sender}\nTo: {to}\nSubject: {subject}\nMessage-ID: <1@x>\n{headers}\n\nHi".encode())


@pytest.mark.parametrize(
    "headers", ["", "Auto-Submitted: no", "Return-Path: <ann@example.org>", "Precedence: first-class"]
)
def test_a_person_is_answered(headers: str) -> None:
    assert reason_against(mail(headers), own=[BOT]) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ("Return-Path: <>", "bounce"),
        ("Content-Type: multipart/report; report-type=delivery-status; boundary=x", "report"),
        ("Auto-Submitted: auto-replied", "automatic"),
        ("Auto-Submitted: auto-generated; x=y", "automatic"),
        ("X-Auto-Response-Suppress: DR, All", "automatic"),
        ("X-Autoreply: yes", "automatic"),
        ("Precedence: Bulk", "bulk"),
        ("Precedence: auto_reply", "bulk"),
        ("List-Id: <a.b>", "list"),
        ("List-Unsubscribe: <mailto:x@y>", "list"),
        (f"X-Loop: {BOT}", "loop"),
        (f"Delivered-To: {BOT}\nDelivered-To: {BOT}", "loop"),
        ("Received: from x\n" * 60, "loop"),
        ("Reply-To: noreply@example.org", "program"),
        (f"Reply-To: {BOT}", "own address"),
    ],
)
def test_what_no_person_waits_for_is_not_answered(headers: str, reason: str) -> None:
    assert reason_against(mail(headers.strip()), own=[BOT]) == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sender": "MAILER-DAEMON@mx.example.org"}, "program"),
        ({"sender": "do-not-reply@shop.example"}, "program"),
        ({"sender": "owner-list@lists.example"}, "program"),
        ({"sender": "bounces+ann=x@lists.example"}, "program"),
        ({"sender": "bot+tag@example.com"}, "own address"),
        ({"sender": ""}, "no sender"),
        ({"to": "other@example.com"}, "not addressed"),
        ({"subject": "Automatic reply: Hello"}, "automatic"),
        ({"subject": "Undelivered Mail Returned to Sender"}, "automatic"),
    ],
)
def test_programs_and_strangers_are_not_answered(values: dict[str, str], reason: str) -> None:
    assert reason_against(mail(**values), own=[BOT]) == reason


def test_a_person_who_answers_a_bounce_is_answered() -> None:
    assert reason_against(mail(subject="Re: Undelivered Mail Returned to Sender"), own=[BOT]) is None


def test_the_envelope_counts_more_than_the_header() -> None:
    assert reason_against(mail("Return-Path: <ann@example.org>"), own=[BOT], return_path="") == "bounce"


def test_a_mail_in_blind_copy_is_answered() -> None:
    assert reason_against(mail(f"Delivered-To: {BOT}", to="other@example.com"), own=[BOT]) is None


def test_only_those_on_the_whitelist_are_answered() -> None:
    for patterns in (["ann@example.org"], ["@example.org"], ["example.org"], ["*@example.org"]):
        assert reason_against(mail(), own=[BOT], whitelist=patterns) is None
    assert reason_against(mail(), own=[BOT], whitelist=["@example.net"]) == "not allowed"
    assert reason_against(mail("Reply-To: eve@evil.example"), own=[BOT], whitelist=["example.org"]) == "not allowed"


@pytest.mark.parametrize("name", ["msg_02.txt", "msg_05.txt", "msg_16.txt", "msg_25.txt", "msg_43.txt"])
def test_bounces_and_lists_among_the_samples_of_python_are_not_answered(name: str) -> None:
    assert reason_against(parse_mail((DATA / name).read_bytes()), own=[BOT]) not in (None, "not addressed")


def parent(**values: Any) -> dict[str, Any]:
    base = {"id": "<2@x>", "in_reply_to": "<1@x>", "references": "<0@x> <1@x>", "reply_to": "ann@example.org"}
    return (
        base | {"from": "ann@example.org", "to": [BOT], "cc": [], "subject": "Hello", "correlation_id": "c1"} | values
    )


def test_an_answer_belongs_to_the_thread_and_says_that_a_program_wrote_it() -> None:
    read = parse_mail(as_bytes(answer_to(parent(), from_address=BOT, body="**Hi**", message_id="<3@x>")))
    assert read.references == ("<0@x>", "<1@x>", "<2@x>")
    assert (read.message_id, read.in_reply_to, read.subject) == ("<3@x>", "<2@x>", "RE: Hello")
    assert (read.first("auto-submitted"), read.first("x-loop")) == ("auto-replied", BOT)
    assert read.first("meshagent-correlation-id") == "c1"
    assert read.html == "<p><strong>Hi</strong></p>\n"
    assert reason_against(read, own=["ann@example.org"]) == "automatic"
    assert answer_to(parent(subject="re: x"), from_address=BOT, body="")["Subject"] == "re: x"


def test_no_text_breaks_a_header() -> None:
    evil = "x\r\nBcc: eve@evil.example\r\n\r\nbody"
    read = parse_mail(as_bytes(answer_to(parent(subject=evil, correlation_id=evil), from_address=BOT, body="x")))
    assert read.first("bcc") is None
    with pytest.raises(InvalidRequestError):
        new_mail(sender=BOT, to=["ann@example.org\r\nBcc: eve@evil.example"], subject="", body="")
    with pytest.raises(InvalidRequestError):
        answer_to(parent(reply_to="nobody", **{"from": ""}), from_address=BOT, body="x")


def test_a_reply_to_all_goes_to_all_but_ourselves() -> None:
    everybody = parent(
        to=[BOT, "bot+x@example.com", "bob@example.org"], cc=["ann@example.org", "Eve <eve@evil.example>"]
    )
    assert recipients_of_answer(everybody, own=[BOT]) == (["ann@example.org"], [])
    to, cc = recipients_of_answer(everybody, own=[BOT], reply_all=True)
    assert (to, cc) == (["ann@example.org"], ["bob@example.org", "eve@evil.example"])
    _, cc = recipients_of_answer(everybody, own=[BOT], reply_all=True, allowed=["example.org"])
    assert cc == ["bob@example.org"]


def test_files_and_foreign_addresses_are_written_as_mail_has_them() -> None:
    files = [File("../ü.pdf", b"1"), File("ü.pdf", b"2", "message/rfc822")]
    written = new_mail(
        sender="bot@bücher.example", to=["Ann Ö <ann@müller.example>"], subject="Grüße", body="ö", files=files
    )
    content = as_bytes(written)
    assert content.isascii()
    read = parse_mail(content)
    assert [(each.name, each.data) for each in read.attachments] == [("ü.pdf", b"1"), ("ü-2.pdf", b"2")]
    assert read.sender.address == "bot@xn--bcher-kva.example"
    assert (read.to[0].name, read.subject, read.text) == ("Ann Ö", "Grüße", "ö")
    assert "jürgen".encode() in as_bytes(new_mail(sender=BOT, to=["jürgen@example.org"], subject="", body="x"))


def test_the_id_of_an_answer_is_that_of_all_its_attempts() -> None:
    assert message_id_for("a", "x.example") == message_id_for("a", "x.example") != message_id_for("b", "x.example")


async def test_a_thread_is_found_by_references_and_by_parents_and_circles_end() -> None:
    known = {
        "<0@x>": {"id": "<0@x>", "path": "0", "in_reply_to": "<2@x>"},
        "<1@x>": {"id": "<1@x>", "path": "1", "in_reply_to": "<0@x>"},
        "<2@x>": {"id": "<2@x>", "path": "2", "in_reply_to": "<1@x>"},
    }
    asked: list[str] = []

    async def load(message_id: str) -> dict[str, Any] | None:
        asked.append(message_id)
        return known.get(message_id)

    only_parent = await gather({"id": "<3@x>", "in_reply_to": "<2@x>"}, load)
    assert {each["id"] for each in only_parent} == set(known)
    assert sorted(asked) == sorted(set(asked))
    only_references = await gather({"id": "<3@x>", "references": "<gone@x> <1@x>"}, load)
    assert {each["id"] for each in only_references} == set(known)
    del known["<0@x>"]["in_reply_to"]
    for named in ({"references": "<2@x> <0@x>"}, {"in_reply_to": "<2@x>"}):
        assert [each["id"] for each in await gather({"id": "<3@x>", **named}, load)] == ["<0@x>", "<1@x>", "<2@x>"]


def test_long_chains_keep_their_first_and_their_newest() -> None:
    chain = chain_for_answer({"id": "<z@x>", "references": " ".join(f"<{n}@x>" for n in range(100))})
    assert (len(chain), chain[0], chain[-1], chain[-2]) == (30, "<0@x>", "<z@x>", "<99@x>")


def test_addresses_are_checked_and_compared() -> None:
    assert is_address("a.b+c@x-y.example")
    assert not any(map(is_address, ("a", "a@", "@b", "a b@c", "a@b\r\nX: y", "<a@b>", "a@b..c", "a@" + "b" * 400)))
    assert address_key("Ann@BÜCHER.example") == "ann@xn--bcher-kva.example"
    assert matches("ANN@Example.org", ["example.ORG"])
    assert not matches("ann@sub.example.org", ["example.org"])
