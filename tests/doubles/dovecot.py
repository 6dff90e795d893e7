"""A private Dovecot on a free port of this machine, with one IMAP mailbox in a temporary folder.

Every name with the password `secret` is the same mailbox. Needs root, as Dovecot does, and the Debian package `dovecot-imapd`.
"""

import asyncio
import imaplib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from doubles.ports import free_port

__all__ = ["Dovecot", "running_dovecot"]

_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{folder}/home/Maildir
default_login_user = dovenull
default_internal_user = dovecot
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/home
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Dovecot:
    """A running Dovecot."""

    port: int
    folder: Path

    def add(self, content: bytes, *, flags: str = "") -> None:
        """Put a mail into the mailbox."""
        with imaplib.IMAP4("127.0.0.1", self.port) as client:
            client.login("anybody", "secret")
            client.append("INBOX", flags, "", content)  # type: ignore[arg-type]

    def flags(self) -> list[bytes]:
        """The flags of all mails, in order."""
        with imaplib.IMAP4("127.0.0.1", self.port) as client:
            client.login("anybody", "secret")
            client.select("INBOX", readonly=True)
            _, found = client.fetch("1:*", "(FLAGS)")
            return [each for each in found if isinstance(each, bytes)]

    def number_anew(self) -> None:
        """Forget all UIDs, as a server does that was restored: UIDVALIDITY changes."""
        for path in (self.folder / "home" / "Maildir").glob("dovecot*"):
            path.unlink()


@asynccontextmanager
async def running_dovecot() -> AsyncIterator[Dovecot]:
    """Skips where Dovecot is missing, but not in CI."""
    program = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        reason = "needs root and the Debian package dovecot-imapd: make system-packages"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder, port = Path(tempfile.mkdtemp(prefix="meshhost-dovecot-")), free_port()
    try:
        _configure(folder, port)
        process = await asyncio.create_subprocess_exec(program, "-F", "-c", str(folder / "dovecot.conf"))
        try:
            await _until_open(port, folder)
            yield Dovecot(port, folder)
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, port: int) -> None:
    folder.chmod(0o755)  # Dovecot enters it as other users
    (folder / "home").mkdir()
    shutil.chown(folder / "home", "nobody", "nogroup")
    (folder / "dovecot.conf").write_text(_CONFIGURATION.format(folder=folder, port=port))


async def _until_open(port: int, folder: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return
