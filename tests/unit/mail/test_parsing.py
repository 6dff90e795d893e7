"""Any bytes are read as a mail, and of real ones is shown what a mail client shows."""

from email.message import EmailMessage
from pathlib import Path

import pytest
import test.test_email
from hypothesis import given
from hypothesis import strategies as st

from meshhost.mail.attachments import safe_name, unique_names
from meshhost.mail.markup import as_text, from_markdown, sanitized
from meshhost.mail.parsing import Mail, parse_mail

DATA = Path(test.test_email.__file__).parent / "data"
SAMPLES = sorted(DATA.iterdir())

# What a client shows of some of CPython's samples: the beginning of the text, and the names of the attachments.
SHOWN = {
    "msg_01.txt": ("Hi,\n\nDo you like this message?", []),
    "msg_02.txt": ("Send Ppp mailing list submissions to", [f"[Ppp] testing #{n}.eml" for n in (1, 3, 4, 5)]),
    "msg_04.txt": ("", ["msg.txt", "msg-2.txt"]),
    "msg_06.txt": ("", ["testing.eml"]),
    "msg_07.txt": ("Hi there,\n\nThis is the dingus fish.", ["dingusfish.gif"]),
    "msg_10.txt": ("This is a 7bit encoded message.\n\n¡This is a Quoted Printable encoded message!", []),
    "msg_13.txt": ("A text/plain part\n\nHi there,", ["dingusfish.gif"]),
    "msg_16.txt": ("This report relates to a message you sent", ["[scr] yeah for Ians!!.eml"]),
    "msg_21.txt": ("One\n\nTwo", []),
    "msg_22.txt": ("Text text text.\n\nText text text.", ["wibble.JPG", "wibble2.JPG"]),
    "msg_26.txt": ("Simple email with attachment.", ["clock.bmp"]),
    "msg_36.txt": ("Blah blah blah", ["draft-ietf-mboned-mix-00.txt"]),
    "msg_43.txt": ("BANNED FILENAME ALERT", []),
    "msg_45.txt": ("This is the signed contents.", ["signature.asc"]),
    "msg_46.txt": ("", ["GroupwiseForwardingTest.eml"]),
    "msg_47.txt": ("bar\n\nbaz", []),
}


def assert_plain(mail: Mail) -> None:
    """All texts can be stored as JSON, and the names of attachments are safe and different."""
    for text in (mail.text, mail.html or "", mail.subject, *(value for _, value in mail.headers)):
        assert text.encode() is not None
        assert "\x00" not in text
    names = [each.name for each in mail.attachments]
    assert len({name.casefold() for name in names}) == len(names)
    assert not any(set("/\\\x00\n") & set(name) or name.startswith(".") or not name for name in names)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_of_python_itself_is_read(sample: Path) -> None:
    assert_plain(parse_mail(sample.read_bytes()))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_read_with_the_line_ends_of_smtp_and_when_it_is_cut_off(sample: Path) -> None:
    content = sample.read_bytes()
    assert_plain(parse_mail(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))
    for part in (3, 5, 7):
        assert_plain(parse_mail(content[: len(content) * part // 10]))


@pytest.mark.parametrize("name", SHOWN)
def test_a_mail_client_would_show_the_same(name: str) -> None:
    text, attachments = SHOWN[name]
    mail = parse_mail((DATA / name).read_bytes())
    assert mail.text.startswith(text)
    assert [each for each in (one.name for one in mail.attachments) if each in attachments] == attachments
    assert bool(mail.text) == bool(text)


def test_the_picture_of_a_sample_is_the_picture_that_was_sent() -> None:
    [picture] = parse_mail((DATA / "msg_07.txt").read_bytes()).attachments
    assert picture.content_type == "image/gif"
    assert picture.data.startswith(b"GIF87a")


def test_a_bounce_is_seen_as_a_report_with_its_status() -> None:
    mail = parse_mail((DATA / "msg_16.txt").read_bytes())
    assert mail.is_report
    assert dict(mail.report)["action"] == "failed"
    assert dict(mail.report)["status"].startswith("5.0.0")


TORTURE = {
    "nothing": b"",
    "one line end": b"\n",
    "only a body": b"\n\nhello",
    "no colon": b"this is no header\nFrom: a@b.example\n\nx",
    "bytes in headers": b"Subject: \xff\xfe caf\xe9\nFrom: \xc3\xa9ric <a@b.example>\n\n\xff",
    "endless address": b"From: " + b"<" * 5000 + b"a@b.example\nTo: " + b"(" * 5000 + b"\n\nx",
    "encoded words": b"Subject: =?utf-8?b?////?= =?nonsense?q?=ff?= =?utf-8?q?=0aX-Evil:_1?=\n\nx",
    "unknown charset": b"Content-Type: text/plain; charset=x-nowhere\n\nh\xe9llo",
    "charset that is no text": b"Content-Type: text/plain; charset=base64\n\nh\xe9llo",
    "charset with a null": b"Content-Type: text/plain; charset=\"a\x00b\"\n\nhello",
    "broken base64": b"Content-Transfer-Encoding: base64\n\n!!!not base64!!",
    "broken quoted-printable": b"Content-Transfer-Encoding: quoted-printable\n\n=ZZ=\n=4",
    "uuencode": b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 a\nM\xff\n",
    "no boundary": b"Content-Type: multipart/mixed\n\n--x\n\nhello\n--x--",
    "empty boundary": b'Content-Type: multipart/mixed; boundary=""\n\n--\n\nhello\n----',
    "boundary never comes": b"Content-Type: multipart/mixed; boundary=x\n\nhello",
    "same boundary inside": b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" * 2 + b"\nhi\n--x--",
    "rfc2231 name": b"Content-Type: application/x; name*0*=utf-8''%ff%fe; name*1=\"/../x\"\n\nhi",
    "rfc2231 gap": b"Content-Disposition: attachment; filename*5=a; filename*0*=nowhere'x'y\n\nhi",
    "many ids": b"References: " + b"<a@b> " * 50_000 + b"\n\nhi",
    "many headers": b"".join(b"X-%d: y\n" % n for n in range(20_000)) + b"\nhi",
    "a message in a message": b"Content-Type: message/rfc822\n\n" * 200 + b"\nhi",
    "delivery status that is none": b"Content-Type: message/delivery-status\n\n\xff",
    "date": b"Date: Mon, 99 Foo 99999 25:61:61 +9999\n\nhi",
    "html alone": b"Content-Type: text/html\n\n<p>Hello<script>alert(1)</script> <b>you</b>",
    "html bomb": b"Content-Type: text/html\n\n" + b"<div>" * 20_000,
    "carriage returns": b"Subject: a\rFrom: b@c.example\r\rhello",
}  # fmt: skip


@pytest.mark.parametrize("name", TORTURE)
def test_torture(name: str) -> None:
    assert_plain(parse_mail(TORTURE[name]))


def test_thousands_of_nested_parts_are_not_followed() -> None:
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(3000))
    assert_plain(parse_mail(deep + b"\nhello"))


def test_a_header_is_one_line_whatever_is_encoded_in_it() -> None:
    mail = parse_mail(TORTURE["encoded words"])
    assert "\n" not in mail.subject
    assert mail.first("x-evil") is None


@given(st.binary(max_size=400), st.sampled_from(["", "Content-Type: multipart/mixed; boundary=x\n\n--x\n", "From: "]))
def test_any_bytes_are_a_mail(content: bytes, before: str) -> None:
    assert_plain(parse_mail(before.encode() + content))


def test_ids_are_found_in_what_clients_write() -> None:
    mail = parse_mail(
        b"Message-ID: <a@b>\nIn-Reply-To: Your message of Monday <p@b>\nReferences: <r@b>\n <s@b> <r@b>\n\nx"
    )
    assert (mail.message_id, mail.in_reply_to, mail.references) == ("<a@b>", "<p@b>", ("<r@b>", "<s@b>"))
    assert parse_mail(b"Message-ID: a@b\n\nx").message_id == "<a@b>"


def test_html_is_text_with_links_and_lists() -> None:
    shown = as_text(
        "<style>p{}</style><p>Hello <b>you</b>,</p><ul><li>one<li>two</ul><a href='https://x.example'>here</a><br>bye"
    )
    assert shown == "Hello you,\n- one\n- two\nhere (https://x.example)\nbye"


def test_html_that_is_passed_on_runs_and_loads_nothing() -> None:
    clean = sanitized("<p onclick=x()>a<img src=http://t.example/p><script>b</script><a href='javascript:c'>d</a>")
    assert clean is not None
    assert not any(word in clean for word in ("onclick", "img", "script", "javascript", "t.example"))
    assert from_markdown("**hi** <script>x</script>") == "<p><strong>hi</strong> &lt;script&gt;x&lt;/script&gt;</p>\n"


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\evil\\x.exe", "x.exe"),
        (".htaccess", "htaccess"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("\x00\n", "attachment"),
        ("..", "attachment"),
        (None, "attachment"),
        ("re:port?.pdf", "re_port_.pdf"),
        ("ü" * 200 + ".pdf", "ü" * 58 + ".pdf"),
    ],
)
def test_names_of_attachments_are_safe(given_name: str | None, safe: str) -> None:
    assert safe_name(given_name) == safe


def test_equal_names_become_different() -> None:
    assert unique_names(["a.txt", "A.txt", "a.txt", None, None]) == [
        "a.txt",
        "A-2.txt",
        "a-3.txt",
        "attachment",
        "attachment-2",
    ]


def test_a_mail_of_our_own_is_read_as_it_was_written() -> None:
    written = EmailMessage()
    written["From"] = "Ann Ö <ann@example.com>"
    written["To"] = "bob@example.com, Eve <eve@example.com>"
    written["Subject"] = "Grüße"
    written.set_content("hello\n")
    written.add_alternative("<p>hello</p>", subtype="html")
    written.add_attachment(b"1", maintype="image", subtype="png", filename="ä.png")
    mail = parse_mail(written.as_bytes())
    assert (mail.sender.name, mail.sender.address) == ("Ann Ö", "ann@example.com")
    assert [each.address for each in mail.to] == ["bob@example.com", "eve@example.com"]
    assert (mail.subject, mail.text, mail.html) == ("Grüße", "hello", "<p>hello</p>\n")
    assert [each.name for each in mail.attachments] == ["ä.png"]


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("iso-8859-1", "“quoted” 5 €".encode("cp1252"), "“quoted” 5 €"),
        ("us-ascii", "déjà".encode(), "déjà"),
        ("gb2312", "朱镕基".encode("gb18030"), "朱镕基"),
        ("ks_c_5601-1987", "햏햏".encode("cp949"), "햏햏"),
        ("utf-8", b"caf\xe9", "caf\ufffd"),
        ("no-such-set", b"caf\xe9", "café"),
        ("base64", b"plain", "plain"),
        ("punycode", b"a-b", "a-b"),
    ],
)
def test_a_character_set_is_what_clients_take_it_for(charset: str, data: bytes, text: str) -> None:
    head = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    assert parse_mail(head.encode() + data).text == text
