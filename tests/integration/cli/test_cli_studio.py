"""`meshhost studio`, and the link that servers print when they start."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest

from meshhost.cli.main import run
from meshhost.cli.serving import shows_studio_link, studio_link_of
from meshhost.settings import read_settings
from meshhost.testing.server import RunningServer, running_server

OPERATOR_KEY = "mo-0123456789abcdef"


async def role_by(link: str) -> str:
    """The role that a link signs in with."""
    page, _, code = link.strip().partition("#code=")
    async with aiohttp.ClientSession() as http, http.post(f"{page}api/session", json={"code": code}) as answer:
        return str((await answer.json())["role"])


async def test_the_command_prints_a_link_that_signs_in(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, ["studio"]) == 0
    link = capsys.readouterr().out
    assert link.startswith(f"{server.url}/studio/#code=")
    assert await role_by(link) == "admin"
    assert await asyncio.to_thread(run, ["studio", "--json"]) == 0
    assert await role_by(json.loads(capsys.readouterr().out)["url"]) == "admin"


async def test_the_operator_gets_a_link_of_their_own(
    environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_server(tmp_path / "server", operator_key=OPERATOR_KEY) as server:
        environment.setenv("MESHHOST_API_URL", server.url)
        assert await asyncio.to_thread(run, ["studio", "--operator"]) == 1
        assert "no operator's key" in capsys.readouterr().err
        environment.setenv("MESHHOST_OPERATOR_KEY", OPERATOR_KEY)
        assert await asyncio.to_thread(run, ["studio", "--operator"]) == 0
        assert await role_by(capsys.readouterr().out) == "operator"


@pytest.mark.parametrize(
    ("setting", "is_terminal", "shows"),
    [(None, True, True), (None, False, False), ("always", False, True), ("never", True, False)],
)
def test_a_link_is_printed_on_a_terminal_only_unless_it_is_asked_for(
    environment: pytest.MonkeyPatch, setting: str | None, is_terminal: bool, shows: bool
) -> None:
    environment.setattr(sys.stdout, "isatty", lambda: is_terminal)
    if setting is not None:
        environment.setenv("MESHHOST_STUDIO_LINK", setting)
    assert shows_studio_link(read_settings()) is shows


async def test_the_link_of_a_server_has_the_rights_of_the_key_that_its_user_has(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("MESHHOST_STUDIO_LINK", "always")
    async with running_server(tmp_path / "server", operator_key=OPERATOR_KEY) as running:
        assert studio_link_of(running.server, read_settings(), None) is None
        link = studio_link_of(running.server, read_settings(), OPERATOR_KEY)
        assert await role_by(link or "") == "operator"
        environment.setenv("MESHHOST_API_KEY", running.api_key)
        link = studio_link_of(running.server, read_settings(), OPERATOR_KEY)
        assert await role_by(link or "") == "admin"
        environment.setenv("MESHHOST_STUDIO_LINK", "never")
        assert studio_link_of(running.server, read_settings(), OPERATOR_KEY) is None
