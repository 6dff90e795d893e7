"""`meshhost queue`: sends to, receives from, looks at and manages the durable queues of a room.

Each command joins the room by `run_in_room` and asks its `queues`. Sending makes a queue, every other command fails for one
that does not exist, since its name may be misspelt (`checks`). Commands that only look, or that change a queue, do not wake a
room that sleeps. Loaded for every `--help`, so libraries are imported inside the functions.
"""

import typer

from meshhost.cli.commands.queue import configuring, dead, managing, messages, receiving, sending

__all__ = ["app"]

app = typer.Typer(help="Send to, receive from and manage the queues of a room.")

app.command()(sending.send)
app.command()(receiving.receive)
app.command("list")(managing.list_queues)
app.command()(managing.size)
app.command()(messages.get)
app.command()(messages.search)
app.command()(messages.peek)
app.command()(messages.cancel)
app.command()(dead.dead)
app.command()(dead.replay)
app.command()(configuring.configure)
app.command()(configuring.pause)
app.command()(configuring.resume)
app.command()(managing.purge)
app.command()(managing.delete)
app.command()(managing.drain)
