"""Ports for programs that must know their address before they run.

A port of the range that the system hands out by itself (`ip_local_port_range`, from 32768 on Linux) may be taken by any
outgoing connection between the moment it was found free and the moment it is listened on. Those below it are taken only by who
asks for them by number.
"""

import random
import socket

__all__ = ["free_port"]

_PORTS = range(20_000, 32_000)


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this machine that nobody listens on, and that no outgoing connection will take.

    Raises:
        OSError: The machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
    # Tests that run side by side must not all begin at the same port.
    for port in random.SystemRandom().sample(_PORTS, k=len(_PORTS)):
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError(f"none of the ports {_PORTS.start} to {_PORTS.stop - 1} is free")
