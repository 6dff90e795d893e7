"""The channel over which a host is called: it announces itself, reports its load, and answers calls.

`HostChannels.serve` is awaited for each channel of the kind `host`. What the host announces becomes a `LinkedHost`, which the
caller of services chooses from; its calls go out here and wait for their answers. When the channel ends, the host is no longer
known, and calls without an answer fail.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from meshhost.errors import CallRefusedError, ConnectionLostError, InvalidRequestError, LocalProtocolError
from meshhost.identity.tenant import TenantId
from meshhost.link.rooms import Announcement, Answer, Call, Report, dumped, parse_host_message
from meshhost.link.running import LinkChannel
from meshhost.server.calling.linked import LinkedHost, LinkedHosts

__all__ = ["HostChannels"]

logger = logging.getLogger(__name__)

_ANNOUNCE_SECONDS = 10.0
# A host with more calls in progress is called elsewhere.
_MAX_CALLS = 10_000


class HostChannels:
    """Serves the channels of hosts. A call has `seconds` to be answered."""

    def __init__(self, hosts: LinkedHosts, *, seconds: float) -> None:
        self._hosts = hosts
        self._seconds = seconds

    async def serve(self, channel: LinkChannel, tenant: TenantId | None) -> None:
        """Serve the channel of a host of this tenant (None: the operator's) until it ends."""
        calls = _Calls(channel, seconds=self._seconds)
        host: LinkedHost | None = None
        try:
            channel.accept()
            first = await _announcement(channel)
            host = LinkedHost(first, tenant, calls.call, first.report)
            fields = {"tenant": tenant, "host": first.host, "service": first.name}
            logger.info("host announced itself", extra={**fields, "paths": [path.path for path in first.paths]})
            self._hosts.add(host)
            while True:
                match parse_host_message(await channel.receive()):
                    case Report() as report:
                        host.report = report
                    case Answer() as answer:
                        calls.answered(answer)
                    case Announcement():
                        raise InvalidRequestError("type", "expected announce once")  # noqa: TRY301
        except ConnectionLostError:
            pass
        except (InvalidRequestError, TimeoutError) as error:
            text = "expected an announcement" if isinstance(error, TimeoutError) else str(error)
            logger.warning("a host's channel is closed", extra={"tenant": tenant, "reason": text})
            await channel.close(1008, f"host: {text}")
        except Exception:
            logger.exception("a host's channel failed", extra={"tenant": tenant})
        finally:
            calls.end()
            if host is not None:
                self._hosts.remove(host)
            if not channel.is_over:
                channel.abort()


async def _announcement(channel: LinkChannel) -> Announcement:
    """The first message of a host. Raises InvalidRequestError, TimeoutError, ConnectionLostError."""
    async with asyncio.timeout(_ANNOUNCE_SECONDS):
        first = parse_host_message(await channel.receive())
    if not isinstance(first, Announcement):
        raise InvalidRequestError("type", "expected announce first")
    return first


class _Calls:
    """The calls of one host that wait for their answers."""

    def __init__(self, channel: LinkChannel, *, seconds: float) -> None:
        self._channel = channel
        self._seconds = seconds
        self._next_id = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def call(self, path: str, data: Mapping[str, Any]) -> None:
        """Call, and return when the host has accepted. Raises CallRefusedError."""
        if len(self._waiting) >= _MAX_CALLS:
            raise CallRefusedError("it has too many calls to answer", status=503, retry_after=1.0)
        self._next_id += 1
        number = self._next_id
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._seconds):
                packet = (dumped(Call(id=number, path=path, data=dict(data))),)
                if not self._channel.send_at_once(packet):
                    await self._channel.send(packet)
                answer = await waiting
        except TimeoutError:
            raise CallRefusedError(f"no answer within {self._seconds:g} s", status=503) from None
        except (ConnectionLostError, LocalProtocolError) as error:
            raise CallRefusedError(f"its link was lost: {error}", status=503) from None
        finally:
            del self._waiting[number]
        if answer.status != 200:
            text = answer.error or "no reason given"
            raise CallRefusedError(text, status=answer.status, retry_after=answer.retry_after)

    def answered(self, answer: Answer) -> None:
        """The host answered. An answer that nobody waits for any more is ignored."""
        waiting = self._waiting.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def end(self) -> None:
        """The channel has ended: nobody answers any more."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionLostError("the link ended"))
