"""The socket to the host, as the inside of an agent's process uses it.

Two daemon threads do the I/O, so that neither depends on the event loop, which the agent's code may block: one writes what
`send` has queued, one reads. Messages are sent in order. When the host closes its end, or has ended, the reading thread kills
this process group: an agent must not outlive its host.
"""

import contextlib
import os
import queue
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import NoReturn

from meshhost.errors import RemoteProtocolError
from meshhost.hosting.processes.messages import FrameReader, Log, Message, encode

__all__ = ["FLUSH_SECONDS", "READ_BYTES", "Channel", "end_group"]

FLUSH_SECONDS = 2.0
"""How long the last messages may take to be sent."""
READ_BYTES = 65_536

# A host that reads slowly must not make an agent that logs much run out of memory.
_MAX_WAITING_RECORDS = 10_000


class Channel:
    """Sends without waiting, from any thread; messages that come in are handled in a thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._outbox: queue.SimpleQueue[Message | threading.Event] = queue.SimpleQueue()
        self._dropped = 0

    def open(
        self, receive: Callable[[Message], None], reader: FrameReader, beat: Callable[[], None], every: float
    ) -> None:
        """Start the threads. The reading one calls `receive` for each message, and `beat` at least `every` seconds.

        `reader` is the one that has read the boot message: it may hold the beginning of the next.
        """
        threading.Thread(target=self._write, name="meshhost to host", daemon=True).start()
        reading = (receive, reader, beat, every)
        threading.Thread(target=self._read, args=reading, name="meshhost from host", daemon=True).start()

    def send(self, message: Message) -> None:
        """Queue a message for sending."""
        self._outbox.put(message)

    def send_log(self, message: Log) -> None:
        """Queue a log record. It is dropped, and counted, when too many wait already."""
        if self._outbox.qsize() > _MAX_WAITING_RECORDS:
            self._dropped += 1
        else:
            self._outbox.put(message)

    def flush(self) -> None:
        """Wait until everything queued so far was written to the socket, at most FLUSH_SECONDS."""
        reached = threading.Event()
        self._outbox.put(reached)
        reached.wait(FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            message = self._outbox.get()
            if isinstance(message, threading.Event):
                message.set()
                continue
            if self._dropped and isinstance(message, Log):
                message.fields["records_dropped"], self._dropped = self._dropped, 0
            # OSError: the host is gone, which the other thread acts upon. ValueError: the message is too long.
            with contextlib.suppress(OSError, ValueError):
                self._sock.sendall(encode(message))

    def _read(
        self, receive: Callable[[Message], None], reader: FrameReader, beat: Callable[[], None], every: float
    ) -> None:
        with contextlib.suppress(OSError, RemoteProtocolError):
            while True:
                beat()
                if not select.select([self._sock], [], [], every)[0]:
                    continue
                if not (data := self._sock.recv(READ_BYTES)):
                    break
                for message in reader.feed(data):
                    receive(message)
        end_group()


def end_group() -> NoReturn:
    """Kill this process and everything that it started."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)
