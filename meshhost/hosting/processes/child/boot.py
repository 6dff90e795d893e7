"""The start of an agent's process: connect to the host, then run the host's program again as it was started.

`interpreter.boot` runs `main` in a new interpreter; a forked child begins in `child.template` and calls `begin`. The first
message of the host says which program to run. `run_program` runs it until it comes to `ServiceHost.run()`, which gives control
to the role of this process; a program that ends or raises before that is reported to the host as a boot that failed.
"""

import contextlib
import faulthandler
import logging
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

from meshhost.errors import MeshhostError
from meshhost.hosting.processes.child.agent import AgentRole
from meshhost.hosting.processes.child.channel import READ_BYTES, Channel, end_group
from meshhost.hosting.processes.child.log_handler import ChannelHandler
from meshhost.hosting.processes.child.roles import Role, take_role
from meshhost.hosting.processes.messages import Boot, BootFailed, FrameReader, RemoteError

__all__ = ["begin", "main", "no_host_with_paths", "prepare", "read_boot", "run_program"]

# A kernel that is short of memory kills an agent before its host, whose score is 0.
_OOM_SCORE = "500"


def main() -> None:
    """Run an agent's process: `python -c 'import …; main()' SOCKET_FD DUMP_FD`."""
    role, boot = begin(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    run_program(role, boot)


def begin(sock: socket.socket, dump_fd: int) -> tuple[AgentRole, Boot]:
    """Become an agent's process of the host at the other end of the socket; returns its role and the boot message."""
    for descriptor in (sock.fileno(), dump_fd):
        os.set_inheritable(descriptor, False)
    boot, reader = read_boot(sock)
    prepare(dump_fd)
    channel = Channel(sock)
    handler = ChannelHandler(channel.send_log)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(boot.log_level)
    role = AgentRole(channel, handler, boot, dump_fd)
    take_role(role)
    # A quarter, so that a beat or two may be late.
    channel.open(role.receive, reader, role.beat, boot.silence_seconds / 4)
    return role, boot


def prepare(dump_fd: int) -> None:
    """Write stack dumps to the pipe on SIGUSR1, and let the kernel prefer this process when it is short of memory."""
    faulthandler.register(signal.SIGUSR1, file=dump_fd, all_threads=True)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def read_boot(sock: socket.socket) -> tuple[Boot, FrameReader]:
    """Read the host's first message; returns it with the reader for the next ones. Ends the process when the host is gone."""
    reader = FrameReader()
    while True:
        if not (data := sock.recv(READ_BYTES)):
            end_group()
        for message in reader.feed(data):
            if isinstance(message, Boot):
                return message, reader


def run_program(role: Role, boot: Boot) -> None:
    """Run the program; when it ends or raises before it came to a host with the paths, tell the host why."""
    sys.argv, sys.path[:] = boot.argv, boot.path
    try:
        if boot.is_module:
            runpy.run_module(boot.program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(boot.program, run_name="__main__")
    except BaseException as error:
        if role.has_served:
            raise
        role.leave(BootFailed(RemoteError.of(error)))
    if not role.has_served:
        role.leave(no_host_with_paths(boot))


def no_host_with_paths(boot: Boot) -> BootFailed:
    """The message for a program that runs no host with the boot's paths."""
    missing = MeshhostError(f"the program ended without running a ServiceHost with the paths {boot.paths}")
    return BootFailed(RemoteError.of(missing))
