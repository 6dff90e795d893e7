"""A private Postfix on free ports of this machine: its own configuration, queue and log in a temporary folder.

It takes mail on `port` from programs of this machine and hands on by the domain of the recipient, as `routes` say. What cannot
be delivered is tried again every second. Needs root, as Postfix does, and the Debian package `postfix`.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from doubles.ports import free_port

__all__ = ["Postfix", "running_postfix"]

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {folder}
maillog_file = {folder}/mail.log
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relay_domains = {domains}
transport_maps = inline:{{ {transports} }}
alias_maps =
alias_database =
local_recipient_maps =
smtp_tls_security_level = may
smtp_host_lookup = native
disable_dns_lookups = yes
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
smtp_connection_cache_on_demand = no
"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix. `folder` has its log as `mail.log`."""

    port: int
    folder: Path

    @property
    def log(self) -> str:
        log = self.folder / "mail.log"
        return log.read_text() if log.exists() else ""


@asynccontextmanager
async def running_postfix(routes: Mapping[str, str]) -> AsyncIterator[Postfix]:
    """`routes` are transports by domain, such as `smtp:[127.0.0.1]:2525`. Skips where Postfix is missing, but not in CI."""
    if shutil.which("postfix") is None or os.geteuid() != 0:
        reason = "needs root and the Debian package postfix: make system-packages"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder, port = Path(tempfile.mkdtemp(prefix="meshhost-postfix-")), free_port()
    try:
        _configure(folder, port, routes)
        await asyncio.to_thread(_postfix, folder, "start")
        try:
            await _until_open(port)
            yield Postfix(port, folder)
        finally:
            await asyncio.to_thread(_postfix, folder, "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, port: int, routes: Mapping[str, str]) -> None:
    transports = ", ".join(f"{{ {domain} = {transport} }}" for domain, transport in routes.items())
    folder.chmod(0o755)  # Postfix enters it as another user
    (folder / "queue").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    main = _MAIN.format(folder=folder, domains=", ".join(routes), transports=transports)
    (folder / "main.cf").write_text(main)
    (folder / "master.cf").write_text(_MASTER.format(port=port))


def _postfix(folder: Path, command: str) -> None:
    done = subprocess.run(["postfix", "-c", str(folder), command], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"postfix {command}: {done.stderr}{done.stdout}")


async def _until_open(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return
