"""`meshhost scheduled-task`: MeshAgent's spelling of schedules, with its specs; ours is `meshhost schedule`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshhost.cli.options import JsonOption, RoomOption

__all__ = ["app"]

app = typer.Typer(help="Send messages at certain times, as MeshAgent's specs say.")

_File = Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="YAML or JSON file with the task's spec.")]
_Task = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]


@app.command()
def add(file: _File, room: RoomOption = None, as_json: JsonOption = False) -> None:
    """Make a scheduled task."""
    from meshhost.cli.commands.configured.asking import ask_project, say, spec_of
    from meshhost.cli.connect import resolve_room

    made = ask_project("POST", f"rooms/{resolve_room(room)}/scheduled-tasks", {"spec": spec_of(file)})
    say(made, f"made scheduled task {made['task_id']}", as_json=as_json)


@app.command("list")
def list_tasks(
    room: Annotated[str | None, typer.Option("--room", metavar="NAME", help="Of this room only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List scheduled tasks."""
    from meshhost.cli.commands.configured.asking import ask_project
    from meshhost.cli.output import print_json, print_table

    query: dict[str, str | int] = {} if room is None else {"room_id": room}
    tasks: list[dict[str, Any]] = ask_project("GET", "scheduled-tasks", None, **query)["tasks"]
    if as_json:
        print_json(tasks)
        return
    rows = [(each["id"], each["room_name"], each["queue_name"], each["schedule"], each["active"]) for each in tasks]
    print_table(("ID", "ROOM", "QUEUE", "SCHEDULE", "ACTIVE"), rows, empty="no scheduled tasks yet")


@app.command()
def update(task: _Task, file: _File, as_json: JsonOption = False) -> None:
    """Replace a scheduled task."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted, say, spec_of

    changed = ask_project("PUT", f"scheduled-tasks/{quoted(task)}", {"spec": spec_of(file)})
    say(changed, f"replaced scheduled task {task}", as_json=as_json)


@app.command()
def runs(task: _Task, as_json: JsonOption = False) -> None:
    """Show the last runs of a scheduled task."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted
    from meshhost.cli.output import print_json, print_table

    found: list[dict[str, Any]] = ask_project("GET", f"scheduled-tasks/{quoted(task)}/runs")["runs"]
    if as_json:
        print_json(found)
        return
    print_table(("AT", "STATUS"), [(each["scheduled_time"], each["status"]) for each in found], empty="no runs yet")


@app.command()
def delete(task: _Task, as_json: JsonOption = False) -> None:
    """Delete a scheduled task."""
    from meshhost.cli.commands.configured.asking import ask_project, quoted, say

    ask_project("DELETE", f"scheduled-tasks/{quoted(task)}")
    say({"deleted": task}, f"deleted scheduled task {task}", as_json=as_json)
