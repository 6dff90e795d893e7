"""`meshhost agents`: lists and uses the agents and toolkits of a room.

Each command joins the room, makes one request of `client.agents`, and leaves. A result that is a file goes to standard output
as it is; a text is printed without control characters, since it comes from an agent; everything else is printed as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from meshhost.protocol.messages import Response

__all__ = ["app"]

app = typer.Typer(help="List and use the agents and tools of a room.")


@app.command("list")
def list_agents(room: RoomOption = None, as_json: JsonOption = False) -> None:
    """List the agents of the room that can be asked."""
    from dataclasses import asdict

    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table

    agents = run_in_room(room, lambda client: client.agents.list_agents())
    if as_json:
        requires = [[requirement.to_json() for requirement in agent.requires] for agent in agents]
        print_json([asdict(agent) | {"requires": needed} for agent, needed in zip(agents, requires, strict=True)])
        return
    rows = [(agent.name, agent.title, agent.description) for agent in agents]
    print_table(("NAME", "TITLE", "DESCRIPTION"), rows, empty="no agent in this room can be asked")


@app.command("list-toolkits")
def list_toolkits(
    room: RoomOption = None,
    participant_id: Annotated[
        str | None,
        typer.Option("--participant-id", metavar="ID", help="Of toolkits with one name show this participant's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the toolkits of the room and their tools."""
    from dataclasses import asdict

    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_table

    toolkits = run_in_room(room, lambda client: client.agents.list_toolkits(participant_id))
    if as_json:
        print_json([asdict(toolkit) for toolkit in toolkits])
        return
    rows = [(toolkit.name, tool.name, tool.description) for toolkit in toolkits for tool in toolkit.tools]
    print_table(("TOOLKIT", "TOOL", "DESCRIPTION"), rows, empty="no toolkits in this room")


@app.command("invoke-tool")
def invoke_tool(
    toolkit: Annotated[str, typer.Option(help="Name of the toolkit.")],
    tool: Annotated[str, typer.Option(help="Name of the tool.")],
    room: RoomOption = None,
    arguments: Annotated[
        str, typer.Option("--arguments", metavar="JSON", help="Arguments of the tool, a JSON object.")
    ] = "{}",
    participant_id: Annotated[
        str | None, typer.Option("--participant-id", metavar="ID", help="Id of the participant that offers the tool.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Invoke a tool and print its result.

    A result that is a file is written to standard output as it is.
    """
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.json_input import parse_object

    values = parse_object(arguments, source="--arguments")
    response = run_in_room(
        room,
        lambda client: client.agents.invoke_tool(
            toolkit=toolkit, tool=tool, arguments=values, participant_id=participant_id
        ),
    )
    _print_response(response, as_json=as_json)


@app.command()
def ask(
    agent: Annotated[str, typer.Option(help="Name of the agent.")],
    room: RoomOption = None,
    arguments: Annotated[
        str, typer.Option("--input", "--arguments", metavar="JSON", help="Arguments for the agent, a JSON object.")
    ] = "{}",
    as_json: JsonOption = False,
) -> None:
    """Ask an agent and print its answer."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.json_input import parse_object

    values = parse_object(arguments, source="--input")
    answer = run_in_room(room, lambda client: client.agents.ask(agent=agent, arguments=values))
    _print_value(answer, as_json=as_json)


def _print_response(response: Response, *, as_json: bool) -> None:
    import base64
    import sys

    from meshhost.cli.output import print_json
    from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse, TextResponse

    match response:
        case FileResponse() if as_json:
            print_json(response.to_json() | {"data": base64.b64encode(response.data).decode()})
        case FileResponse():
            sys.stdout.buffer.write(response.data)
            sys.stdout.buffer.flush()
        case _ if as_json:
            print_json(response.to_json())
        case JsonResponse():
            print_json(response.json)
        case TextResponse():
            _print_value(response.text, as_json=False)
        case EmptyResponse():
            pass
        case _:
            print_json(response.to_json())


def _print_value(value: Any, *, as_json: bool) -> None:
    """Print a text with its lines, without control characters; print other values as JSON."""
    from meshhost.cli.output import one_line, print_json

    if as_json or not isinstance(value, str):
        print_json(value)
        return
    for line in value.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        print(indent + one_line(line))
