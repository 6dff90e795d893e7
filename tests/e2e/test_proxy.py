"""The sample for nginx, in front of a real room server.

Where nginx is not installed, Debian's package is unpacked into a folder of the test. Skipped where that is impossible too.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from doubles.ports import free_port

import meshhost
from meshhost.testing.server import RunningServer, running_server

SAMPLE = Path(__file__).parents[2] / "config" / "nginx" / "meshhost.conf"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass
class Proxy:
    """Where nginx listens, with TLS and without."""

    port: int
    plain_port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def configuration(folder: Path, server: RunningServer, proxy: Proxy) -> str:
    """The sample with ports and files of this test, in the smallest configuration around it."""
    sample = SAMPLE.read_text()
    for given, ours in (
        ("127.0.0.1:8080", server.url.removeprefix("http://")),
        ("listen 80;", f"listen 127.0.0.1:{proxy.plain_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{proxy.port} ssl;"),
        ("/etc/nginx/tls/rooms.", f"{folder}/rooms."),
    ):
        assert given in sample
        sample = sample.replace(given, ours)
    (folder / "sample.conf").write_text(sample)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return (
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths} include {folder}/sample.conf; }}\n"
    )


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program: the machine's, or the one of Debian's package."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if found is not None:
        return found
    if shutil.which("apt-get") is None or shutil.which("openssl") is None:
        pytest.skip("needs openssl, and nginx or Debian's packages")
    folder = tmp_path_factory.mktemp("nginx")
    download = ["apt-get", "download", "--quiet", "nginx"]
    if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode:
        subprocess.run(["apt-get", "update", "--quiet"], check=True, capture_output=True)
        subprocess.run(download, cwd=folder, check=True, capture_output=True)
    [package] = folder.glob("nginx_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True, capture_output=True)
    return str(folder / "usr" / "sbin" / "nginx")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "rooms.key"), "-out", str(tmp_path / "rooms.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "rooms.crt"


@pytest.fixture
async def proxied(
    nginx: str, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Proxy]:
    proxy = Proxy(free_port(), free_port())
    async with running_server(tmp_path / "server") as server:
        file = tmp_path / "nginx.conf"
        file.write_text(configuration(tmp_path, server, proxy))
        process = await asyncio.create_subprocess_exec(nginx, "-p", str(tmp_path), "-c", str(file))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setenv("MESHHOST_API_URL", proxy.url)
        monkeypatch.setenv("MESHHOST_API_KEY", server.api_key)
        try:
            while True:
                assert process.returncode is None, (tmp_path / "error.log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
            yield proxy
        finally:
            process.terminate()
            await process.wait()


async def test_a_room_is_used_through_nginx(proxied: Proxy) -> None:
    large = b"x" * (5 * 1024 * 1024)
    async with meshhost.connect("my-room") as room:
        await room.queues.send(name="jobs", message={"n": 1})
        leased = await room.queues.lease(name="jobs")
        assert leased is not None
        assert leased.message == {"n": 1}
        await leased.ack()
        handle = await room.storage.open(path="large", overwrite=True)
        await room.storage.write(handle=handle, data=large)
        await room.storage.close(handle=handle)
        assert (await room.storage.download(path="large")).data == large


async def test_what_is_for_operators_is_not_passed_on_and_plain_http_is_redirected(proxied: Proxy) -> None:
    async with aiohttp.ClientSession() as session:

        async def status(url: str) -> int:
            async with session.get(url, allow_redirects=False, ssl=False) as response:
                return response.status

        assert await status(f"{proxied.url}/readyz") == 200
        assert [await status(f"{proxied.url}/{path}") for path in ("metrics", "tenants", "tenants/acme")] == [404] * 3
        assert await status(f"http://127.0.0.1:{proxied.plain_port}/readyz") == 301
