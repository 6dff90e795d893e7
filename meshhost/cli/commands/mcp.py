"""`meshhost mcp`: what an IDE needs to use a room, and whether an MCP server can be used by agents.

`url` prints what goes into the configuration of an IDE or another client; `check` starts or dials a server as an agent would
and lists its tools; `login` logs a person in at a server, so that the agents of a tenant may use it. The last two need the
extra `mcp`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from meshhost.mcp import FileTokens, HttpServer, MCPServerToolkit, StdioServer

__all__ = ["app"]

app = typer.Typer(help="Use a room from an IDE, and try MCP servers.")

TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Tenant whose login is meant.")]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--tokens", metavar="FOLDER", help="Folder of the stored logins (default: mcp-tokens in MESHHOST_CONFIG_DIR)."
    ),
]


@app.command()
def url(
    room: RoomOption = None,
    toolkit: Annotated[
        str | None, typer.Option("--toolkit", metavar="NAME", help="Offer only the tools of this toolkit.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the participant that the client is.")] = "ide",
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="TIME", help="Lifetime of the token, such as 12h or 30d; or never.")
    ] = "30d",
    with_token: Annotated[
        bool, typer.Option("--token/--no-token", help="With a token, or for a client that logs in by itself.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Print how an IDE or another MCP client uses the tools and agents of a room.

    The token opens this room and grants tools and agents, nothing else. Anyone who has it can use them.
    """
    from urllib.parse import quote, urlencode

    from meshhost.cli.commands.token import expiration_of
    from meshhost.cli.connect import resolve_room, server_access
    from meshhost.cli.output import note, print_json, print_line, to_json
    from meshhost.identity.signing import room_token

    if not name.strip():
        raise typer.BadParameter("expected a name", param_hint="--name")
    expiration, room_name = expiration_of(lifetime), resolve_room(room)
    access = server_access()
    query = "" if toolkit is None else f"?{urlencode({'toolkit': toolkit})}"
    address = f"{access.api_url}/rooms/{quote(room_name, safe='')}/mcp{query}"
    entry: dict[str, Any] = {"type": "http", "url": address}
    if with_token:
        rights = dict.fromkeys(("register_agent", "register_public_toolkit", "register_private_toolkit", "call"), False)
        allowed = {} if toolkit is None else {"allowed_toolkits": [toolkit]}
        scope = {"agents": {**rights, "use_agents": toolkit is None, **allowed}}
        token = room_token(access.api_key, room_name, name=name, scope=scope, expiration=expiration)
        entry["headers"] = {"Authorization": f"Bearer {token}"}
    config = {"mcpServers": {f"meshhost-{room_name}": entry}}
    if as_json:
        print_json(config)
        return
    note('Put this into the configuration of your client (VS Code calls the outer member "servers"):')
    print_line(to_json(config))


@app.command(context_settings={"ignore_unknown_options": True})
def check(
    target: Annotated[
        list[str], typer.Argument(metavar="URL|COMMAND", help="Address of the server, or how to start it.")
    ],
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="Header for a server at an address.")
    ] = None,
    tenant: TenantOption = None,
    tokens: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Connect to an MCP server as an agent would, and list its tools.

    Options stand before the address or the command; what follows a command belongs to it.
    """
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import note, print_json, print_table

    log_for_command()
    kit = _toolkit(_server(target, header or [], tenant, tokens))

    async def work() -> str | None:
        async with kit:
            return kit.connection.protocol_version

    version = asyncio.run(work())
    tools: list[Any] = kit.tools
    if as_json:
        listed = [
            {"name": tool.name, "server_name": tool.mcp_tool.name, "description": tool.description}
            | {"input_schema": tool.input_schema}
            for tool in tools
        ]
        print_json({"protocol_version": version, "tools": listed})
        return
    note(f"The server speaks MCP {version} and has {len(tools)} tools.")
    print_table(
        ("TOOL", "DESCRIPTION"), [(tool.name, _first_line(tool.description)) for tool in tools], empty="no tools"
    )


@app.command()
def login(
    address: Annotated[str, typer.Argument(metavar="URL", help="Address of the MCP server.")],
    tenant: TenantOption = None,
    tokens: FolderOption = None,
    scope: Annotated[
        str | None, typer.Option("--scope", metavar="TEXT", help="Scopes to ask for (default: what the server says).")
    ] = None,
) -> None:
    """Log in at an MCP server in a browser, and store the tokens for the agents of a tenant."""
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.output import note

    log_for_command()
    tenant_id = _tenant(tenant)
    _mcp()
    from meshhost.mcp.oauth import login as log_in

    async def show(page: str) -> None:
        note(f"Open this page in a browser: {page}")

    store = _store(tokens).of(tenant=tenant_id, server=address)
    asyncio.run(log_in(address, store, show=show, scope=scope))
    note(f"Logged in at {address} for tenant {tenant_id}.")


def _server(target: list[str], headers: list[str], tenant: str | None, tokens: Path | None) -> HttpServer | StdioServer:
    mcp = _mcp()
    first, *arguments = target
    if not first.startswith(("http://", "https://")):
        if headers or tenant is not None:
            raise typer.BadParameter("is for a server at an address", param_hint="--header" if headers else "--tenant")
        return mcp.StdioServer(first, arguments)  # type: ignore[no-any-return]
    if arguments:
        raise typer.BadParameter(f"expected nothing after the address, got {arguments[0]!r}", param_hint="URL")
    auth = None
    if tenant is not None:
        from meshhost.mcp.oauth import token_auth

        auth = token_auth(first, _store(tokens).of(tenant=tenant, server=first))
    return mcp.HttpServer(first, headers=dict(map(_header, headers)), auth=auth)  # type: ignore[no-any-return]


def _toolkit(server: HttpServer | StdioServer) -> MCPServerToolkit:
    kit: MCPServerToolkit = _mcp().MCPServerToolkit(name="server", server=server)
    return kit


def _store(folder: Path | None) -> FileTokens:
    from meshhost.client_settings import read_client_settings

    store: FileTokens = _mcp().FileTokens(folder or read_client_settings().config_dir / "mcp-tokens")
    return store


def _tenant(given: str | None) -> str:
    """The tenant that is named, else that of the project whose key is set up here."""
    from meshhost.cli.connect import server_access

    return given or server_access().project_id


def _mcp() -> Any:
    """The package, which needs an extra. Raises SettingsError without it."""
    from importlib import import_module

    from meshhost.errors import SettingsError

    try:
        return import_module("meshhost.mcp")
    except ModuleNotFoundError as error:
        raise SettingsError(str(error)) from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter("expected NAME:VALUE", param_hint="--header")
    return name.strip(), value.strip()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
