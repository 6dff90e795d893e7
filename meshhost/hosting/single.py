"""`RemoteAgentServer`, `RemoteTaskRunnerServer` and `RemoteToolkitServer`: a service host for one class at one path.

The names that older MeshAgent programs serve an agent or a toolkit with. Each is a `ServiceHost` with one path: the same
signatures, supervision and draining.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshhost.errors import SettingsError
from meshhost.hosting.service_host import ServiceHost
from meshhost.room.call import CallContext
from meshhost.tools.hosting import start_hosted_toolkit
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["RemoteAgentServer", "RemoteTaskRunnerServer", "RemoteToolkitServer"]

Made = Callable[..., Any]


class RemoteAgentServer:
    """Serves `cls`, or what `create_agent(arguments)` makes, at `path` (default /webhook): await `run()`.

    `arguments` are those of the call; a class gets them as its keyword arguments. `host`, `port` and `webhook_secret` are those
    of `ServiceHost`; with `validate_webhook_secret=False` no secret is used, and only this machine may call.
    """

    def __init__(
        self,
        *,
        cls: Made | None = None,
        path: str | None = None,
        host: str | None = None,
        port: int | None = None,
        webhook_secret: str | None = None,
        create_agent: Callable[[dict[str, Any]], Any] | None = None,
        validate_webhook_secret: bool | None = None,
    ) -> None:
        made = create_agent or cls
        if made is None:
            raise SettingsError("cls: expected the class that is served, or create_agent")
        self._make: Made = made
        self._is_class = create_agent is None
        secret = "" if validate_webhook_secret is False else webhook_secret
        self.host = ServiceHost(host=host, port=port, webhook_secret=secret)
        self.host.add_path(path or "/webhook", cls=self._made)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return: see ServiceHost."""
        await self.host.run()

    async def start(self) -> None:
        """Listen for calls: see ServiceHost."""
        await self.host.start()

    async def stop(self) -> None:
        """Let the agents finish and stop listening: see ServiceHost."""
        await self.host.stop()

    def _made(self, call: CallContext) -> Any:
        arguments = dict(call.arguments or {})
        if not self._is_class:
            return self._make(arguments)
        given: dict[str, Any] = {"call": call} if "call" in inspect.signature(self._make).parameters else arguments
        return self._make(**given)


class RemoteTaskRunnerServer(RemoteAgentServer):
    """The same, under the name for task runners."""


class RemoteToolkitServer(RemoteAgentServer):
    """Serves a toolkit: `cls`, or what `create_toolkit(arguments)` makes, is offered in each room that calls."""

    def __init__(
        self,
        *,
        cls: Made | None = None,
        path: str | None = None,
        host: str | None = None,
        port: int | None = None,
        webhook_secret: str | None = None,
        create_toolkit: Callable[[dict[str, Any]], Toolkit] | None = None,
        validate_webhook_secret: bool | None = None,
    ) -> None:
        super().__init__(
            cls=cls,
            path=path,
            host=host,
            port=port,
            webhook_secret=webhook_secret,
            create_agent=create_toolkit,
            validate_webhook_secret=validate_webhook_secret,
        )

    def _made(self, call: CallContext) -> Any:
        return _Offered(super()._made(call))


class _Offered:
    """A toolkit as an agent: offered from `start` to `stop`."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit
        self._hosted: Any = None

    async def start(self, *, room: "RoomClient") -> None:
        self._hosted = await start_hosted_toolkit(room=room, toolkit=self._toolkit)

    async def stop(self) -> None:
        hosted, self._hosted = self._hosted, None
        if hosted is not None:
            await hosted.stop()
