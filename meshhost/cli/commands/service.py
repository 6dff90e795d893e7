"""`meshhost service run`: prints the progress of `meshhost.app.service_runner.run_service`, which does the work.

Loaded by `main` only when the command runs, so it may import at its top what it needs. The exit code is that of the program.
"""

import asyncio
import sys
from typing import Any

import typer

from meshhost.app.service_runner import run_service
from meshhost.cli.log_output import log_for_command
from meshhost.cli.output import note, print_json, print_line
from meshhost.cli.serving import shows_studio_link
from meshhost.settings import read_settings

__all__ = ["run"]


def run(*, file: str, room: str, json: bool, reload: bool = False, port: int = 0, link: bool = False) -> None:
    """Run the program until it ends or a signal stops it. Raises MeshhostError, or typer.Exit with the program's code."""
    log_for_command()

    shows_link = shows_studio_link(read_settings())

    is_explained = False

    def progress(step: str, text: str, fields: dict[str, Any]) -> None:
        nonlocal is_explained
        is_explained = is_explained or step == "ended"
        if step == "studio" and not shows_link:
            return
        if json:
            print_json({"step": step, "text": text, **fields})
        else:
            print_line(text)
        if step == "joined" and sys.stderr.isatty() and not json:
            note(f"send it work: meshhost queue send --room={room} --queue=… --json='{{…}}'; Ctrl-C stops")

    running = run_service(file, room=room, progress=progress, reload=reload, shows_jobs=json, port=port, links=link)
    exit_code = asyncio.run(running)
    if exit_code and not is_explained:
        note(f"the program ended with exit code {exit_code}")
    if exit_code:
        raise typer.Exit(exit_code)
