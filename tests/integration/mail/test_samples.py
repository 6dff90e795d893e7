# ruff: noqa: RUF001 - mails are in many languages
"""Real mails that others collected, many of them broken, show what a mail client shows of them."""

from pathlib import Path

import pytest
from doubles.made import made

from meshhost.mail.parsing import Mail, parse_mail

pytestmark = pytest.mark.slow

# By file: the subject, the beginning of the text, and the names of the attachments.
SHOWN: dict[str, tuple[str, str, list[str]]] = {
    "mail_malformed_1": ("immagine", "--Sent from my iPhone", []),
    "mail_malformed_2": (
        "Delivery failure (abh@netpar.com.br)",
        "Your message has encountered delivery problems",
        ["DSN57BAC498.txt", "attachment.rfc822headers"],
    ),
    "mail_test_1": ("письмо уведом-е", "Налогоплательщик!", ["ФНС_РФ558.zip"]),  # bytes without a character set
    "mail_test_12": ("代开各地增值税发票", "你好！我公司可代开各类增值税发票", []),
    "mail_test_14": ("Test", "HTML here\n\nPlaintext here.", ["attachment.png"]),
    "mail_test_15": ("Urgent Request for Order Quotation", "Dear Sirs/Madame", ["REQUEST FOR QUOTE.zip"]),
    "encoded_headers.eml": ("If you can read this you understand the example.", "Taken from RFC 2047", []),
    "encoded_param.eml": ("Seeking a job", "Please find my credentials attached.", ["résumé.txt"]),
    "has_rfc822.eml": ("Fwd: Your confirmed booking", "Here's that e-mail you wanted:", ["Your confirmed booking.eml"]),
    "related.eml": ("", "", ["attachment.xfixedrecord", "attachment.bin"]),
}


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    folder = made("mail-samples")
    paths = [*folder.glob("mail_parser-*/tests/mails/*"), *folder.glob("mailbits-*/test/data/emails/*.eml")]
    return {path.name: path.read_bytes() for path in paths}


def check_plain(name: str, mail: Mail) -> None:
    for text in (mail.text, mail.html or "", mail.subject, *(value for _, value in mail.headers)):
        assert "\x00" not in text, name
        assert text.encode() is not None
    names = [each.name for each in mail.attachments]
    assert len({each.casefold() for each in names}) == len(names), name
    assert not any("/" in each or each != Path(each).name for each in names), name


def test_every_sample_is_read_whole_cut_off_and_with_other_line_ends(samples: dict[str, bytes]) -> None:
    assert len(samples) >= 30
    for name, content in samples.items():
        for each in (
            content,
            content[: len(content) // 2],
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\r", b""),
        ):
            check_plain(name, parse_mail(each))


def test_a_mail_client_would_show_the_same(samples: dict[str, bytes]) -> None:
    found = {name: parse_mail(samples[name]) for name in SHOWN}
    assert {
        name: (mail.subject, mail.text[: len(SHOWN[name][1])], [each.name for each in mail.attachments])
        for name, mail in found.items()
    } == SHOWN


def test_a_text_that_breaks_its_character_set_is_shown_as_far_as_that_goes(samples: dict[str, bytes]) -> None:
    mail = parse_mail(samples["mail_test_9"])  # its subject ends in the middle of a character, and says gb2312 for gbk
    assert mail.subject.startswith("我把镜头拉近些")
    assert "我把镜头拉近些" in mail.text
