"""Arguments and options that several commands of `meshhost host` have.

Filters (tenant, path, state, room) are sent to the host, which applies them before it makes pages.
"""

from typing import Annotated

import typer

__all__ = [
    "AgentArgument",
    "PathOption",
    "RoomOption",
    "StateOption",
    "TenantArgument",
    "TenantOption",
    "UrlOption",
]

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help=(
            "URL of the host (default: MESHHOST_HOST_URL, else port MESHHOST_PORT of this machine, else the host that "
            "`meshhost service run` has started, else port 8081)."
        ),
    ),
]
AgentArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the agent, or the beginning of it, if only one agent's id begins so.")
]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant.")]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="TENANT", help="Show only agents of this tenant.")
]
PathOption = Annotated[str | None, typer.Option("--path", metavar="PATH", help="Show only agents of this path.")]
StateOption = Annotated[str | None, typer.Option("--state", metavar="STATE", help="Show only agents in this state.")]
RoomOption = Annotated[
    str | None, typer.Option("--room", metavar="NAME", help="Show only agents in rooms of this name.")
]
