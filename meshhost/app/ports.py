"""A free TCP port for a program that this process is about to start, and that can only be told a number.

`meshhost service run` uses it for the port of the program that it runs, which it must know to call it. The port stays bound
for as long as the block lasts: there is no moment in which another program could take it.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from meshhost.errors import SettingsError

__all__ = ["reserved_port"]


@contextmanager
def reserved_port(host: str = "127.0.0.1", *, port: int = 0) -> Iterator[int]:
    """Reserve a port (this one, or any that is free) that no other program is given by chance for as long as the block lasts,
    but that a program can listen on.

    The port is bound here and never listened on. Linux lets another socket bind it too when both have SO_REUSEADDR, which
    every asyncio server sets; but it does not choose the port for a socket that asks for any free one. So there is no moment in
    which the port is free, as there would be if it were bound, closed and hoped for.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reservation.bind((host, port))
        except OSError as error:
            raise SettingsError(f"cannot use port {port}: {error.strerror}; choose another --port") from None
        yield reservation.getsockname()[1]
