"""`meshhost call`: calls an agent or a toolkit of a running host into a room, as MeshAgent's `call` does.

A host on this machine is called from here, with a token that the project's key signs; one elsewhere by the room server, if its
operator lists the address in `call_urls`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["app"]

app = typer.Typer(help="Call an agent or a toolkit of a running host into a room.")

_Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="The path of the host, such as http://host:8081/agent.")
]
_Name = Annotated[
    str, typer.Option("--participant-name", "--agent-name", "--name", metavar="NAME", help="Its name in the room.")
]
_Arguments = Annotated[str, typer.Option("--arguments", metavar="JSON", help="An object that the agent can read.")]
_Local = Annotated[
    bool | None, typer.Option("--local/--no-local", help="Call from here (default: for hosts of this machine).")
]


@app.command()
def agent(
    url: _Url,
    name: _Name,
    room: RoomOption = None,
    arguments: _Arguments = "{}",
    local: _Local = None,
    as_json: JsonOption = False,
) -> None:
    """Call an agent into the room."""
    from meshhost.cli.json_input import parse_object
    from meshhost.cli.output import print_json, print_line

    given = parse_object(arguments, source="--arguments")
    _call(url, name, room, given, is_local=_is_local(url) if local is None else local)
    if as_json:
        print_json({"called": url, "name": name})
    else:
        print_line(f"called {name} at {url}")


app.command("tool", help="Call a toolkit into the room.")(agent)
app.command("toolkit", help="Call a toolkit into the room.", hidden=True)(agent)
app.command("schema", help="Call an agent into the room.", hidden=True)(agent)


def _is_local(url: str) -> bool:
    from urllib.parse import urlsplit

    from meshhost.loopback import is_loopback

    try:
        return is_loopback(urlsplit(url).hostname)
    except ValueError:
        raise typer.BadParameter("expected an http or https URL", param_hint="--url") from None


def _call(url: str, name: str, room: str | None, arguments: dict[str, Any], *, is_local: bool) -> None:
    import asyncio

    from meshhost.cli.connect import resolve_room, run_in_room, server_access
    from meshhost.cli.log_output import log_for_command

    if not is_local:

        async def ask(client: RoomClient) -> None:
            await client.agents.make_call(name=name, url=url, arguments=arguments)

        run_in_room(room, ask)
        return
    log_for_command()
    asyncio.run(_call_from_here(server_access(), resolve_room(room), url, name, arguments))


async def _call_from_here(access: Any, room: str, url: str, name: str, arguments: dict[str, Any]) -> None:
    from meshhost.identity.signing import AGENT_SCOPE, room_token
    from meshhost.server.calling.webhooks import WebhookSender
    from meshhost.settings import read_settings

    secret = read_settings().webhook_secret
    data = {
        "room_name": room,
        "room_url": f"ws{access.api_url.removeprefix('http')}/rooms/{room}",
        "token": room_token(access.api_key, room, name=name, scope=AGENT_SCOPE, role="agent"),
        "arguments": arguments,
    }
    async with WebhookSender() as sender:
        await sender.send(url, "room.call", data, secret=secret.get_secret_value() if secret else None)
