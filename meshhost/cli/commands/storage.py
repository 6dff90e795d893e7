"""`meshhost storage`: lists, copies and deletes files of a room. A path in the room is written `room:PATH`.

Each command joins the room as the participant `cli` (`connect.run_in_room`). The copying is done by `cli.transfers.copying`, in
chunks; a target appears complete or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption, RoomOption

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from meshhost.room.client import RoomClient
    from meshhost.room.services.storage import StorageEntry

__all__ = ["app"]

app = typer.Typer(help="Read and write the files of a room.")

_PAGE = 1000

RoomPath = Annotated[str, typer.Argument(metavar="PATH", help="Path in the room, with or without `room:` before it.")]


@app.command()
def ls(
    path: RoomPath = "",
    room: RoomOption = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Only what has a name that begins so.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many entries.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a folder of the room. A long list is printed as it comes; as JSON it is one array, by name."""
    from dataclasses import asdict

    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import note, print_json

    folder = _room_path(path)
    if as_json:
        found = run_in_room(room, lambda client: _entries(client, folder, prefix, limit), only_looks=True)
        print_json([asdict(entry) for entry in sorted(found, key=lambda entry: entry.name)])
    elif run_in_room(room, lambda client: _print_pages(_pages(client, folder, prefix, limit)), only_looks=True) == 0:
        note("nothing here has a name that begins so" if prefix else "this folder is empty")


@app.command()
def cat(path: RoomPath, room: RoomOption = None) -> None:
    """Write a file of the room to standard output."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import need_stdout
    from meshhost.cli.transfers.copying import write_to_stdout

    need_stdout()
    run_in_room(room, lambda client: write_to_stdout(client, _room_path(path)), only_looks=True)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(help="Local file, or room:PATH.")],
    target: Annotated[str, typer.Argument(help="Local file or folder, or room:PATH.")],
    room: RoomOption = None,
    no_overwrite: Annotated[bool, typer.Option("--no-overwrite", "-n", help="Fail when the target exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a file to the room, from the room, or within the room."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json, print_line
    from meshhost.cli.transfers.copying import copy, parse_place

    origin, goal = parse_place(source), parse_place(target)
    if not origin.is_in_room and not goal.is_in_room:
        raise typer.BadParameter("one of the two must be room:PATH", param_hint="SOURCE and TARGET")
    done = run_in_room(room, lambda client: copy(client, origin, goal, overwrite=not no_overwrite))
    if as_json:
        print_json({"source": str(origin), "target": str(done.target), "bytes": done.size})
    else:
        print_line(f"{done.target} ({done.size} bytes)")


@app.command()
def rm(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files of the room.")],
    room: RoomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete files of the room."""
    from meshhost.cli.connect import run_in_room
    from meshhost.cli.output import print_json

    wanted = [_room_path(path) for path in paths]

    async def use(client: RoomClient) -> None:
        for path in wanted:
            await client.storage.delete(path)

    run_in_room(room, use)
    if as_json:
        print_json({"deleted": wanted})


def _room_path(text: str) -> str:
    from meshhost.cli.transfers.copying import parse_place

    place = parse_place(text)
    return place.path if place.is_in_room else text.strip("/")


async def _pages(
    client: RoomClient, path: str, prefix: str, limit: int | None
) -> AsyncIterator[Sequence[StorageEntry]]:
    """Yield the entries of the folder in pages, or the file itself. Raises NotFoundError when there is neither."""
    from meshhost.errors import NotFoundError

    left, is_empty = limit, True
    async for entries in client.storage.pages(path=path, limit=min(left or _PAGE, _PAGE), prefix=prefix):
        if entries:
            is_empty = False
            yield entries[:left]
        left = None if left is None else left - len(entries)
        if left is not None and left <= 0:
            return
    if not is_empty or path == "" or prefix:
        return
    entry = await client.storage.stat(path=path)
    if entry is None:
        raise NotFoundError(f"no file or folder {path!r} in this room: `meshhost storage ls` shows the files")
    if not entry.is_folder:
        yield [entry]


async def _entries(client: RoomClient, path: str, prefix: str, limit: int | None) -> list[StorageEntry]:
    return [entry async for page in _pages(client, path, prefix, limit) for entry in page]


async def _print_pages(pages: AsyncIterator[Sequence[StorageEntry]]) -> int:
    """Print each page when it comes; return how many entries there were."""
    from meshhost.cli.output import print_table, shown_time

    count = 0
    async for page in pages:
        entries = sorted(page, key=lambda entry: entry.name)
        rows = [
            (f"{entry.name}/" if entry.is_folder else entry.name, shown_time(entry.updated_at)) for entry in entries
        ]
        print_table(("NAME", "CHANGED"), rows, empty="")
        count += len(page)
    return count
