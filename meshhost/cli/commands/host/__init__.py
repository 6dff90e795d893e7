"""`meshhost host`: inspect and control a running service host, as its operator.

`reading` has the commands that only look, `control` those that change something. Both speak to the host's admin API by
`client`; `tables` turns answers into text. Loaded for every `--help`, so at import only typer and the standard library.
"""

import typer

from meshhost.cli.commands.host import control, reading

__all__ = ["app"]

app = typer.Typer(help="Inspect and control a service host.")

for _command in (
    reading.ps,
    reading.describe,
    control.stop,
    control.kill,
    reading.tenants,
    control.freeze,
    control.thaw,
    control.release,
    control.drain,
    reading.top,
):
    app.command()(_command)
