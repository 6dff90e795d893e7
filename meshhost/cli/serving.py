"""Runs a room server until a signal, for `meshhost room serve`: sets up logs, prints the ready line, handles signals.

`meshhost.app.embedded` makes and stops the server; here is only what a process of its own needs around it. The first signal
stops the server in order, a second one ends the wait for that. The ready line is printed once the port accepts connections, so
a program that reads it can connect at once. A link to Studio follows, on a terminal only, because it signs in: it must not get
into files and logs that others read.

With a configuration file, SIGHUP has the `[[services]]` of the file read again; without one it ends the process, as usual.
"""

import asyncio
import gc
import logging
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from meshhost.app.config_file import changed_tables, read_server_file
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.model_hint import missing_model
from meshhost.app.operator import find_operator_key, make_operator_key
from meshhost.app.project import known_keys
from meshhost.cli.log_output import log_for_server
from meshhost.cli.output import note, print_json, print_line
from meshhost.errors import SettingsError
from meshhost.server.server import RoomServer
from meshhost.settings import Settings, read_settings
from meshhost.signals import StopSignals, hangups, stop_signals
from meshhost.tasks import first_of

__all__ = ["serve_rooms", "shows_studio_link", "studio_link_of"]

logger = logging.getLogger(__name__)

# New containers until the youngest are looked through, and collections of one generation until one of the next. By default
# (700, 10, 10) what a request needs counts as old before it is answered, and a quarter more of what is old makes a full
# collection, which with 6,000 participants holds everybody up for about a second.
_COLLECTING = (10_000, 10, 20)
_SWITCH_SECONDS = 0.0005


def serve_rooms(options: ServerOptions, *, as_json: bool, config: Path | None = None) -> None:
    """Run the server until a signal; print one line on stdout when it is ready. Raises SettingsError.

    `config` is where `options.file` was read.
    """
    log_for_server()
    settings = read_settings()
    options = replace(options, operator_key=_operator_key(settings))
    if not known_keys(settings):
        note("there is no API key yet, so nobody can join: run `meshhost setup` to make one")
    if not options.file.providers and (missing := missing_model(settings)) is not None:
        note(missing)
    asyncio.run(_serve(options, config, as_json=as_json))


def shows_studio_link(settings: Settings) -> bool:
    """Whether the link is printed here: on a terminal, if MESHHOST_STUDIO_LINK does not say otherwise."""
    return settings.studio_link == "always" or (settings.studio_link == "terminal" and sys.stdout.isatty())


def studio_link_of(server: RoomServer, settings: Settings, operator_key: str | None) -> str | None:
    """A link with the rights of the user's own key, else of the operator's; None without a key, or where none is shown."""
    keys = known_keys(settings)
    if not shows_studio_link(settings) or not (keys or operator_key):
        return None
    return server.studio_link(keys[0] if keys else None)


def _operator_key(settings: Settings) -> str | None:
    """The operator's key, made at the first start. A server whose configuration directory is read-only runs without one."""
    present = find_operator_key(settings)  # a wrong one is an error
    if present is not None:
        return present
    try:
        return make_operator_key(settings)
    except SettingsError as error:
        note(str(error))
        return None


async def _serve(options: ServerOptions, config: Path | None = None, *, as_json: bool) -> None:
    async with stop_signals() as stop:
        await first_of(_serve_until(stop, options, config, as_json=as_json), stop.wait_forced())


async def _serve_until(stop: StopSignals, options: ServerOptions, config: Path | None, *, as_json: bool) -> None:
    async with AsyncExitStack() as stack:
        hangup = await stack.enter_async_context(hangups()) if config is not None else asyncio.Event()
        server = await stack.enter_async_context(open_room_server(options))
        # What is loaded by now stays for good. Frozen, it is not looked through by each full collection, which held everybody
        # up for 30 to 40 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTING)
        # The store's thread waits this long for the interpreter when the event loop is busy, several times for each operation.
        # By default it is 5 ms, which made a send beside a flood take 17 ms.
        sys.setswitchinterval(_SWITCH_SECONDS)
        data_dir = str(options.data_dir.absolute())
        link = studio_link_of(server, read_settings(), options.operator_key)
        if as_json:
            studio = {} if link is None else {"studio": link}
            print_json({"url": server.url, "data_dir": data_dir, "pid": os.getpid(), **studio})
        else:
            print_line(f"room server ready at {server.url} (data in {data_dir})")
            if link is not None:
                print_line(f"Studio (the link works once): {link}")
        await first_of(stop.wait(), _replace_services(server, options, config, hangup))


async def _replace_services(
    server: RoomServer, options: ServerOptions, config: Path | None, hangup: asyncio.Event
) -> None:
    """Read the services of the file again at each hangup. A file with an error changes nothing. Runs until cancelled."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            file = await asyncio.to_thread(read_server_file, config)
            services = await asyncio.to_thread(file.configured_services)
        except SettingsError as error:
            logger.warning("services are not read again: those of before stay", extra={"error": str(error)})
            continue
        server.replace_services(services)
        logger.info("services are read again", extra={"file": str(config), "services": len(services)})
        if changed := changed_tables(options.file, file):
            logger.warning("a change of the file needs a restart of the room server", extra={"tables": changed})
