"""`meshhost db`: checks, migrates, backs up, restores and copies the databases of a room server.

These commands open the databases themselves, by `meshhost.app.engines`; no room server is asked, and none needs to run. SQLite
is backed up and restored here; for PostgreSQL the commands of its own tools are printed. `copy` moves SQLite to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshhost.cli.options import JsonOption

if TYPE_CHECKING:
    from meshhost.stores.moving.copy import Advance, Copy
    from meshhost.stores.moving.installation import Installation
    from meshhost.stores.postgres.upkeep import PostgresUpkeep
    from meshhost.stores.sqlite.upkeep.backup import Backup
    from meshhost.stores.sqlite.upkeep.upkeep import SqliteUpkeep
    from meshhost.stores.upkeep import DatabaseReport

__all__ = ["app"]

app = typer.Typer(help="Check, migrate, back up, restore and copy the databases of a room server.")

_DataDir = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder for data (default: MESHHOST_DATA_DIR, else ./.meshhost)."),
]
_DatabaseUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Database (default: MESHHOST_DATABASE_URL, else the files in the data folder)."),
]
# How often the progress of a copy is shown.
_SHOW_ROWS = 1000
# What a release's schema is called for people.
_STATES = {
    "missing": "not made yet",
    "current": "of this release",
    "older": "of an earlier release",
    "newer": "of a later release",
    "other": "not of the room server",
}


@app.command()
def check(data_dir: _DataDir = None, database_url: _DatabaseUrl = None, as_json: JsonOption = False) -> int:
    """Look whether the databases are whole, of which versions they are, and whether a server uses them.

    Changes nothing; a room server may run. Exits with 1 when something is wrong.
    """
    import asyncio

    from meshhost.cli.output import note, print_json

    report = asyncio.run(_upkeep(data_dir, database_url).look())
    if as_json:
        print_json(_as_json(report))
    else:
        _print_report(report)
        if report.problem is not None:
            note(f"meshhost: {report.problem}")
    return 0 if report.problem is None else 1


@app.command()
def migrate(data_dir: _DataDir = None, database_url: _DatabaseUrl = None, as_json: JsonOption = False) -> None:
    """Bring the databases to the version of this release, as a room server does when it starts.

    Refused while a server uses databases that must change.
    """
    import asyncio

    from meshhost.cli.output import print_json, print_line

    changes = asyncio.run(_upkeep(data_dir, database_url).migrate())
    if as_json:
        print_json([{"store": change.store, "from": change.before, "to": change.after} for change in changes])
        return
    for change in changes:
        print_line(f"{change.store}: from version {change.before} to {change.after}")
    if not changes:
        print_line("up to date: nothing was changed")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; it must not exist.")],
    data_dir: _DataDir = None,
    database_url: _DatabaseUrl = None,
    as_json: JsonOption = False,
) -> None:
    """Write all databases of the data folder into one file, while the room server may run.

    Files of rooms (storage/) are no databases and are not in it: copy them afterwards. For PostgreSQL this prints the command
    that makes the backup.
    """
    from meshhost import __version__
    from meshhost.cli.output import print_json, print_line, working

    upkeep = _upkeep(data_dir, database_url)
    if upkeep.name == "postgresql":
        _print_tool(upkeep.dump_command(str(file)), "pg_dump", upkeep, as_json=as_json)
        return
    done = upkeep.back_up(
        file, release=__version__, progress=lambda total: working("backing up the databases", total=total)
    )
    if as_json:
        databases = [{"name": one.name, "version": one.version, "bytes": one.bytes} for one in done.databases]
        print_json(
            {"file": str(file), "bytes": file.stat().st_size, "created_at": done.created_at, "databases": databases}
        )
        return
    print_line(f"wrote {file}: {', '.join(one.name for one in done.databases)} ({file.stat().st_size} bytes)")
    print_line(
        f"not in it: files of rooms ({upkeep.data_dir / 'storage'}, or the object store), keys of MESHHOST_CONFIG_DIR"
    )


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Backup that `meshhost db backup` wrote.")],
    data_dir: _DataDir = None,
    database_url: _DatabaseUrl = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the databases that are there; they are kept in a folder beside.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, with --force.")] = False,
    only_check: Annotated[
        bool, typer.Option("--check", help="Only check that the backup is whole; a room server may run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put the databases of a backup into an empty data folder: all of them or, after an error, none.

    Everything is checked before. The room server must be stopped. For PostgreSQL this prints the command that restores.
    """
    from meshhost.cli.output import print_json, print_line, working

    upkeep = _upkeep(data_dir, database_url)
    if upkeep.name == "postgresql":
        command = upkeep.list_command(str(file)) if only_check else upkeep.restore_command(str(file))
        _print_tool(command, "pg_restore", upkeep, as_json=as_json)
        return
    if only_check:
        checked = upkeep.check_backup(file, progress=lambda total: working("checking the backup", total=total))
        _print_checked(checked, as_json=as_json)
        return
    if force and upkeep.has_databases:
        _confirm(upkeep.data_dir, yes=yes)
    done, kept = upkeep.restore(
        file, replace=force, progress=lambda total: working("restoring the databases", total=total)
    )
    names = [one.name for one in done.databases]
    if as_json:
        replaced = None if kept is None else str(kept)
        print_json({"restored": True, "databases": names, "created_at": done.created_at, "replaced": replaced})
        return
    print_line(f"restored {', '.join(names)} into {upkeep.data_dir}")
    if kept is not None:
        print_line(f"the databases of before are in {kept}: delete them when nothing is missing")
    print_line("files of rooms are not in a backup: copy storage/ too, if you have not")


@app.command()
def copy(
    from_url: Annotated[
        str, typer.Argument(metavar="FROM_URL", help="Data folder of the room server, as sqlite:///FOLDER.")
    ],
    to_url: Annotated[str, typer.Argument(metavar="TO_URL", help="Empty database, as postgresql://user@host/name.")],
    data_dir: _DataDir = None,
    as_json: JsonOption = False,
) -> None:
    """Copy all that a room server keeps in SQLite into a PostgreSQL database, and compare both.

    The room server must be stopped. Run it again after an interruption: it goes on. Until it is done, no room server opens the
    target. Files of rooms are no databases and stay where they are. With FROM_URL naming a file, that is the one of the queues.
    """
    import asyncio

    from meshhost.cli.output import print_json
    from meshhost.settings import read_settings
    from meshhost.stores.moving.installation import check_target, find_source

    source = find_source(from_url, (data_dir or read_settings().data_dir).expanduser())
    check_target(to_url)
    _upkeep(None, to_url)  # raises when what PostgreSQL needs is not installed
    from meshhost.stores.moving.copy import copy_to_postgres

    done = asyncio.run(copy_to_postgres(source.upkeep.files, to_url, progress=_counted))
    if as_json:
        tables = [{"name": table.name, "rows": table.rows, "checksum": table.checksum} for table in done.tables]
        print_json(
            {
                "rows": done.rows,
                "resumed_rows": done.resumed,
                "leased": done.leased,
                "tables": tables,
                "left_out": source.left_out,
            }
        )
    else:
        _print_copy(done, source)


def _print_copy(done: Copy, source: Installation) -> None:
    from meshhost.cli.output import note, print_line, print_table

    rows = [(table.name, table.rows, table.checksum) for table in done.tables]
    print_table(("TABLE", "ROWS", "CHECKSUM"), rows, empty="no tables")
    before = f", {done.resumed} of them in an earlier run" if done.resumed else ""
    print_line(f"copied {done.rows} rows{before}; counts and checksums of source and copy are equal")
    if done.leased:
        print_line(
            f"{done.leased} messages are under lease: a worker that reconnects in time settles its own, "
            "the others are delivered again when their leases end"
        )
    note(
        f"not copied: {', '.join(source.left_out)}; start the room server with the same data folder and --database-url"
    )


@contextmanager
def _counted(total: int) -> Iterator[Advance]:
    """Show on a terminal how many of `total` rows are copied or checked."""
    from meshhost.cli.output import counting

    done = 0
    with counting("copying and checking", total=total) as show:

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            if done % _SHOW_ROWS < rows:
                show(done, done)

        yield advance


def _print_checked(backup: Backup, *, as_json: bool) -> None:
    from meshhost.cli.output import print_json, print_line, shown_time

    names = [one.name for one in backup.databases]
    if as_json:
        print_json({"restored": False, "databases": names, "created_at": backup.created_at, "replaced": None})
    else:
        print_line(f"whole: {', '.join(names)}, of {shown_time(backup.created_at)} by meshhost {backup.release}")


def _upkeep(data_dir: Path | None, database_url: str | None) -> SqliteUpkeep | PostgresUpkeep:
    from meshhost.app.engines import make_upkeep
    from meshhost.cli.log_output import log_for_command
    from meshhost.settings import read_settings

    log_for_command()
    settings = read_settings()
    return make_upkeep(database_url or settings.database_url, (data_dir or settings.data_dir).expanduser())


def _as_json(report: DatabaseReport) -> dict[str, object]:
    return {
        "engine": report.engine,
        "place": report.place,
        "server": report.server,
        "in_use": report.is_in_use,
        "ok": report.problem is None,
        "problem": report.problem,
        "bytes": sum(store.bytes for store in report.stores),
        "stores": [
            {
                "name": store.name,
                "version": store.version,
                "newest": store.newest,
                "state": store.state,
                "bytes": store.bytes,
                "problem": store.problem,
            }
            for store in report.stores
        ],
    }


def _print_report(report: DatabaseReport) -> None:
    from meshhost.cli.output import print_line, print_table

    in_use = {True: "a room server uses it", False: "no room server uses it", None: "behind a pooler"}[report.is_in_use]
    size = sum(store.bytes for store in report.stores)
    print_line(f"{report.server or report.engine} at {report.place}: {size} bytes; {in_use}")
    rows = [
        (
            store.name,
            store.version,
            _STATES[store.state],
            store.bytes if report.engine == "sqlite" else None,
            "problem" if store.problem else "ok" if store.version is not None else None,
        )
        for store in report.stores
    ]
    print_table(("STORE", "VERSION", "SCHEMA", "BYTES", "CHECK"), rows, empty="no stores")
    if any(store.state in {"older", "missing"} for store in report.stores) and report.problem is None:
        print_line("`meshhost db migrate`, or the next start of a room server, brings it to this release")


def _print_tool(command: str, tool: str, upkeep: PostgresUpkeep, *, as_json: bool) -> None:
    """Print the command, and on stderr whether the installed program can do it."""
    import asyncio

    from meshhost.cli.output import note, print_json
    from meshhost.stores.postgres.upkeep import tool_version

    server, installed = asyncio.run(upkeep.server_version()), tool_version(tool)
    if as_json:
        print_json({"command": command, "server_version": server, "tool_version": installed})
    else:
        print(command, flush=True)
    if installed is None:
        note(f"{tool} is not installed here: take that of PostgreSQL {server} or newer")
    elif installed < server:
        note(
            f"the installed {tool} is of version {installed}, too old for PostgreSQL {server}: install {server} or newer"
        )
    note("the password is taken from PGPASSWORD or ~/.pgpass; files of rooms are not in the database: copy them too")


def _confirm(data_dir: Path, *, yes: bool) -> None:
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("give it: standard input is no terminal to ask at", param_hint="--yes")
    typer.echo(f"{data_dir} has databases, which the backup replaces.", err=True)
    if typer.prompt(f"Type the name of the folder ({data_dir.absolute().name}) to replace them", err=True) != (
        data_dir.absolute().name
    ):
        raise typer.Abort
