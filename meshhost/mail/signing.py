"""DKIM: a mail is signed with the key of its domain, so that other servers believe where it comes from (RFC 6376).

The public half of the key is a TXT record at `SELECTOR._domainkey.DOMAIN`. `DkimKey.of_file` reads the private half when the
program starts and says at once what is wrong with it. Signing is pure; it needs dkimpy, of the extra `mail`.
"""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from meshhost.errors import SettingsError

__all__ = ["DkimKey"]

# What a receiver shows or acts on must not be changed or added behind our back.
_HEADERS = (
    "from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references", "reply-to", "mime-version",
    "content-type", "content-transfer-encoding", "auto-submitted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A key of a domain: `private_key` is a PEM of RSA."""

    domain: str
    selector: str
    private_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if find_spec("dkim") is None:
            raise SettingsError("signing mail with DKIM needs a library more: pip install 'meshhost[mail]'")
        if not self.domain or not self.selector:
            raise SettingsError("DKIM needs the domain and the selector of its key")
        self.sign(b"From: a@b\r\n\r\n.\r\n")

    @staticmethod
    def of_file(domain: str, selector: str, path: Path) -> "DkimKey":
        """Return the key in a file. Raises SettingsError when it cannot be read or is no key."""
        try:
            return DkimKey(domain, selector, path.read_bytes())
        except OSError as error:
            raise SettingsError(f"cannot read the DKIM key {path}: {error.strerror}") from None

    def sign(self, content: bytes) -> bytes:
        """Return a mail with a signature before its headers. Raises SettingsError when the key is none."""
        import dkim

        present = {line.partition(b":")[0].strip().lower() for line in content.partition(b"\r\n\r\n")[0].splitlines()}
        headers = [each.encode() for each in _HEADERS if each.encode() in present]
        try:
            signature = dkim.sign(
                content,
                self.selector.encode(),
                self.domain.encode("idna"),
                self.private_key.strip(),
                canonicalize=(b"relaxed", b"relaxed"),
                # From twice: a second one cannot be added.
                include_headers=[*headers, b"from"],
                signature_algorithm=b"rsa-sha256",
            )
        except Exception as error:  # noqa: BLE001 - dkimpy raises its own errors, and those of the libraries below it
            raise SettingsError(f"the DKIM key of {self.domain} cannot sign: {type(error).__name__}") from None
        return bytes(signature) + content
