"""The configuration of a room server: plain values, with every limit and time in one place.

`meshhost.app.embedded` makes a `ServerConfig` from settings and files; nothing in `server/` reads the environment or a file.
The objects are frozen: a running server never sees another value than the one it was started with.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol

from meshhost.edge.limits import EdgeLimits
from meshhost.identity.grants import ApiScope
from meshhost.identity.roles import Role
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.mail.delivery import SmtpServer
from meshhost.mail.signing import DkimKey
from meshhost.protocol.frames import Limits
from meshhost.tenant_names import TenantLabel

__all__ = [
    "MAX_HEADER_BYTES",
    "BuiltInHosts",
    "CallTimes",
    "CalledAt",
    "ConfiguredService",
    "LinkConfig",
    "LivekitConfig",
    "MailConfig",
    "OidcConfig",
    "OidcRole",
    "SecretUse",
    "ServerConfig",
    "ServicePath",
]

MAX_HEADER_BYTES = 1024 * 1024
"""The JSON header of a message from a participant: what is larger belongs in the payload, or in a file."""
_LIVEKIT_NAMES = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
# What a connection may hold beside one message of the largest size, in each direction.
_BESIDE_A_MESSAGE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CalledAt:
    """The address of a host, and the secret that its calls are signed with."""

    url: str
    secret: str = field(repr=False)


class BuiltInHosts(Protocol):
    """Keeps a host running that serves the built-in agents."""

    async def address(self, *, but: CalledAt | None = None) -> CalledAt:
        """Where it is, started if need be; not at `but`, which has just failed. Raises ToolError."""


@dataclass(frozen=True, slots=True)
class ServicePath:
    """One agent of a service: the path that calls it, its identity, and its scope (None: an agent's default)."""

    path: str
    identity: str
    scope: ApiScope | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret of a tenant, by name or id, whose value is used: one of its members, or all of them under their own names.

    `variable` is the name under which one is given; the member is the one of this name, or the only one.
    """

    secret: str
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Links of hosts that dial in. A lost one may come back within `resume_seconds`; a tenant has at most `max_per_tenant`.

    A link that is silent for `heartbeat_seconds` is asked for a sign of life, and ended after half of that time more.
    """

    resume_seconds: float = 15.0
    max_per_tenant: int = 100
    heartbeat_seconds: float = 10.0
    call_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class ConfiguredService:
    """A service host whose agents are called into every room whose name matches `rooms`, a shell pattern.

    `other_urls` are hosts of the same program, which are called when the one before fails. A `url` such as `link://NAME` stands
    for all hosts that dialled in under this name and have the labels that it `requires`. One of the operator's is for all
    tenants; one of a `tenant` is for that tenant's rooms: it has an `id` when the tenant configured it, and is then called only
    where tenants may let this server call. Its agents find in their call's arguments an `environment`: `variables`, and what
    `secrets` of the tenant hold.
    """

    url: str
    paths: Sequence[ServicePath]
    rooms: str = "*"
    webhook_secret: str | None = field(default=None, repr=False)
    other_urls: Sequence[str] = ()
    requires: Mapping[str, str] = field(default_factory=dict)
    tenant: TenantId | None = None
    id: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[SecretUse] = ()
    signed_with: SecretUse | None = None

    @property
    def all_urls(self) -> tuple[str, ...]:
        """Its hosts in order, each once."""
        return tuple(dict.fromkeys((self.url, *self.other_urls)))

    def wants(self, room: RoomKey) -> bool:
        """Whether this service's agents belong in the room."""
        return self.tenant in (None, room.tenant) and fnmatchcase(room.name, self.rooms)


@dataclass(frozen=True, slots=True)
class OidcRole:
    """What the members of a group may do: a role in a tenant (its name or id), or without a tenant the operator's."""

    group: str
    role: Role | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """A provider: its issuer, what it knows this server as, and the roles of its groups, the first of which counts."""

    issuer: str
    client_id: str
    name: str
    roles: Sequence[OidcRole]
    client_secret: str | None = field(default=None, repr=False)
    scopes: str = "openid email profile"
    groups_claim: str = "groups"


@dataclass(frozen=True, slots=True)
class LivekitConfig:
    """Where the LiveKit server is (ws:// or wss://), and a key of it. Without all three, no voice goes through it."""

    url: str | None = None
    api_key: str | None = None
    api_secret: str | None = field(default=None, repr=False)

    def missing(self) -> list[str]:
        """The variables of the environment that are not set."""
        values = (self.url, self.api_key, self.api_secret)
        return [name for name, value in zip(_LIVEKIT_NAMES, values, strict=True) if not value]


@dataclass(frozen=True, slots=True)
class MailConfig:
    """How mail comes in and goes out. Addresses are host and port; None: nothing is listened on.

    `listen` takes mail for mailboxes by `protocol`, `submission` takes mail of participants, who log in with their tokens, for
    mailboxes and, through `relay`, for everybody; `dkim` signs what is relayed. `hostname` is the name of this server (None:
    that of the machine). `domains` are those that mailboxes may have (none: any). `tls` is used for STARTTLS; with
    `require_tls` nothing is taken without. One mail has at most `max_bytes`, all that are being received together
    `max_buffered_bytes`. A connection that is silent for `idle_seconds`, or sends a mail at less than `bytes_per_second`, is
    ended. An address may send `mails_per_minute`, and name `max_unknown` recipients that do not exist.
    """

    listen: tuple[str, int] | None = None
    submission: tuple[str, int] | None = None
    protocol: Literal["smtp", "lmtp"] = "smtp"
    hostname: str | None = None
    domains: Sequence[str] = ()
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    require_tls: bool = False
    relay: SmtpServer | None = None
    dkim: DkimKey | None = None
    max_bytes: int = 6 * 1024 * 1024
    max_buffered_bytes: int = 64 * 1024 * 1024
    max_connections: int = 100
    max_connections_per_address: int = 10
    max_recipients: int = 50
    max_unknown: int = 20
    mails_per_minute: float = 120.0
    idle_seconds: float = 60.0
    bytes_per_second: float = 1024.0


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Seconds between the calls of a configured service: a called agent has `join` to join.

    One that joined within the last `start` may not have registered yet what it offers, and is waited for.
    After a failed call the next one waits, between half of a bound and all of it; the bound doubles from `first_delay` to
    `max_delay`. After an agent was in the room for `stable`, the bound starts again.
    """

    join: float = 30.0
    start: float = 10.0
    first_delay: float = 0.5
    max_delay: float = 60.0
    stable: float = 60.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Limits and times (seconds) of a room server.

    `public_url` is where participants reach it (None: the address it listens on). `resume_seconds` is how long a participant
    whose connection was lost may come back as itself; `linger_seconds` how long a room stays open when only agents that the
    server called in are there; `look_seconds` how often it looks for closed rooms with work; `receive_seconds` how long a
    receive waits for a message; `blocked_seconds` how long a worker whose event loop is blocked keeps its message;
    `call_seconds` how long a tool or agent may take to answer. `max_requests` bounds the requests in progress of one
    connection, `max_waiting_bytes` what waits to be sent on it. All connections together hold at most `max_in_flight_bytes` of
    messages. A message has `message_seconds` to arrive, and another one for every `edge.bytes_per_second` of it that came.
    `call_times` paces the calls of `services`. `return_seconds` is how long after its start the server waits for agents of its
    former life to come back before it calls a service with several hosts. `webhook_urls` receive a webhook when a room starts
    or ends. `call_urls` are the prefixes of URLs that `agent.call` may call. `oauth` turns on the loopback login that the
    MeshAgent CLI's `setup` uses (None: where there is no `public_url`). `edge` bounds connections and half-sent requests. With
    `require_token_expiry` tokens of participants that never expire are refused. `operator_key` is the key that manages tenants;
    without one nobody does. `oidc` lets people sign in to Studio by a provider. `host_admin_key` is the admin key of service
    hosts, which the operator sees through this server; `local_hosts` returns those that run on this machine, with the room that
    each was run for. The first `tenant_labels` tenants have a label of their own in the metrics, which shows their id or name.
    `series_file` is where the series of points about queues are kept while the server does not run. `mail` is how mail comes in
    and goes out, `livekit` the server that voice may go through, and `links` lets hosts dial in (None: they may not). Of each
    tenant `traces_per_second` messages are traced, and `failed_traces_per_second` of those that fail. `built_ins` keeps a host
    of the built-in agents running (None: rooms have none).
    """

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    limits: Limits = Limits(header_bytes=MAX_HEADER_BYTES)  # noqa: RUF009 - immutable
    resume_seconds: float = 10.0
    linger_seconds: float = 60.0
    look_seconds: float = 60.0
    receive_seconds: float = 20.0
    lease_seconds: float = 30.0
    blocked_seconds: float = 600.0
    call_seconds: float = 300.0
    return_seconds: float = 0.0
    call_times: CallTimes = field(default_factory=CallTimes)
    heartbeat_seconds: float = 30.0
    max_requests: int = 256
    max_waiting_bytes: int = 64 * 1024 * 1024
    max_in_flight_bytes: int = 256 * 1024 * 1024
    message_seconds: float = 30.0
    max_upload_bytes: int = 1024 * 1024 * 1024
    services: Sequence[ConfiguredService] = ()
    webhook_urls: Sequence[str] = ()
    webhook_secret: str | None = field(default=None, repr=False)
    call_urls: Sequence[str] = ()
    oauth: bool | None = None
    require_token_expiry: bool = False
    edge: EdgeLimits = field(default_factory=EdgeLimits)
    operator_key: str | None = field(default=None, repr=False)
    oidc: OidcConfig | None = None
    host_admin_key: str | None = field(default=None, repr=False)
    local_hosts: Callable[[], Mapping[str, str]] = field(default=dict, repr=False)
    tenant_labels: int = 0
    tenant_label: TenantLabel = "id"
    series_file: Path | None = None
    mail: MailConfig = field(default_factory=MailConfig)
    livekit: LivekitConfig = field(default_factory=LivekitConfig)
    links: LinkConfig | None = None
    traces_per_second: float = 10.0
    failed_traces_per_second: float = 10.0
    built_ins: BuiltInHosts | None = field(default=None, repr=False)

    @property
    def connection_bytes(self) -> int:
        """What one connection may hold in each direction."""
        return max(self.max_waiting_bytes, self.limits.message_bytes) + _BESIDE_A_MESSAGE

    @property
    def has_login(self) -> bool:
        """Whether the loopback login is served."""
        return self.public_url is None if self.oauth is None else self.oauth
