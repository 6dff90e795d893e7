"""The options of a host, merged once from the arguments of `ServiceHost` and the environment.

An argument wins over its variable, a variable over the default. `HostOptions` checks the arguments and names the wrong one and
what was expected; `read_settings` has checked the variables. Everything behind it gets plain, valid values: no other part of
hosting reads the environment.

The last group of fields has no argument and no variable: times that only tests change, through `ServiceHost.tune`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from meshhost.edge.limits import EdgeLimits
from meshhost.errors import SettingsError
from meshhost.hosting.agents.life import STOP_SECONDS
from meshhost.hosting.http.routes import BODY_SECONDS
from meshhost.hosting.linking import LinkTo
from meshhost.hosting.observe.load import LoadLimits
from meshhost.hosting.processes.options import ProcessOptions
from meshhost.hosting.tenants.quarantine import QuarantinePolicy
from meshhost.hosting.tenants.quotas import TenantQuota
from meshhost.settings import Settings
from meshhost.supervision.agent import CLEANUP_SECONDS
from meshhost.tenant_names import TenantLabel

__all__ = ["HostOptions", "OnBlock"]

OnBlock = Literal["report", "isolate"]

_MAX_PORT = 65535
_LINKED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """The options of one host; see `ServiceHost` for their meaning. Times in seconds.

    A port of 0 means a free port, a `health_port` of 0 no health server, a `ledger` of None no ledger, an empty secret or admin
    key was turned into None. Raises SettingsError naming the argument that is wrong.
    """

    name: str = "meshhost-service"
    host: str = "127.0.0.1"
    port: int = 0
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_room_urls: Sequence[str] = ()
    max_agents: int = 10_000
    drain_seconds: float = 30.0
    processes: ProcessOptions = field(default_factory=ProcessOptions)
    on_block: OnBlock = "report"
    blocks_allowed: int = 3
    block_seconds: float = 1.0
    quotas: Mapping[str, TenantQuota] = field(default_factory=dict)
    default_quota: TenantQuota = field(default_factory=TenantQuota)
    quarantine: QuarantinePolicy = field(default_factory=QuarantinePolicy)
    max_starts: int = 32
    tenant_labels: int = 50
    tenant_label: TenantLabel = "id"
    ledger: Path | None = None
    admin_key: str | None = field(default=None, repr=False)
    health_port: int = 0
    live_seconds: float = 30.0
    start_seconds: float = 60.0
    edge: EdgeLimits = field(default_factory=EdgeLimits)
    # Set: the host dials in there; without `listens` nobody can call it otherwise.
    link: LinkTo | None = None
    listens: bool = True

    cleanup_seconds: float = CLEANUP_SECONDS
    stop_seconds: float = STOP_SECONDS
    body_seconds: float = BODY_SECONDS
    # After a refused body, how long aiohttp reads on, so that the sender gets to read the refusal.
    linger_seconds: float = 1.0
    load_limits: LoadLimits = field(default_factory=LoadLimits)

    def __post_init__(self) -> None:
        for name in ("port", "health_port"):
            self._check_number(name, whole=True, least=0, most=_MAX_PORT)
        for name in ("max_agents", "blocks_allowed", "max_starts"):
            self._check_number(name, whole=True, least=1)
        self._check_number("drain_seconds", whole=False, least=0)
        if self.on_block not in ("report", "isolate"):
            raise SettingsError(f"on_block: expected report or isolate, not {self.on_block!r}")
        if self.link is not None and not _LINKED_NAME.fullmatch(self.name):
            raise SettingsError(f"name: a host that dials in has letters, digits, - and _ in it, not {self.name!r}")
        if isinstance(self.allowed_room_urls, str):
            raise SettingsError("allowed_room_urls: expected a list of URLs, not one text")

    def _check_number(self, name: str, *, whole: bool, least: float, most: float = math.inf) -> None:
        value: Any = getattr(self, name)
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or value == math.inf:
            what = "a whole number" if whole else "a number of seconds"
            bounds = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise SettingsError(f"{name}: expected {what}, {bounds}, not {value!r}")

    @classmethod
    def merged(
        cls,
        settings: Settings,
        *,
        host: str | None = None,
        webhook_secret: str | None = None,
        port: int | None = None,
        name: str | None = None,
        allowed_room_urls: Sequence[str] | None = None,
        max_agents: int | None = None,
        drain_seconds: float | None = None,
        process_pool: int | ProcessOptions | None = None,
        on_block: OnBlock = "report",
        blocks_allowed: int = 3,
        quotas: Mapping[str, TenantQuota] | None = None,
        default_quota: TenantQuota | None = None,
        quarantine: QuarantinePolicy | None = None,
        ledger: str | Path | None = None,
        admin_key: str | None = None,
        webhook_secrets: Mapping[str, str] | None = None,
        health_port: int | None = None,
        room_server: str | None = None,
        api_key: str | None = None,
        rooms: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> "HostOptions":
        """The arguments of `ServiceHost`, with the settings for those that are None."""
        link = _link(room_server, api_key, rooms, labels, settings)
        return cls(
            name=name or "meshhost-service",
            host=host or settings.host or "127.0.0.1",
            port=_first(port, settings.port, 0),
            webhook_secret=_secret(webhook_secret, settings.webhook_secret),
            webhook_secrets=dict(webhook_secrets or {}),
            allowed_room_urls=_room_urls(allowed_room_urls, settings),
            max_agents=max_agents or settings.max_agents,
            drain_seconds=_first(drain_seconds, settings.drain_seconds),
            processes=_process_options(process_pool, settings),
            on_block=on_block,
            blocks_allowed=blocks_allowed,
            block_seconds=settings.block_seconds,
            quotas=dict(quotas or {}),
            default_quota=default_quota or _default_quota(settings),
            quarantine=quarantine or QuarantinePolicy(),
            max_starts=settings.max_starts,
            tenant_labels=settings.tenant_labels,
            tenant_label=settings.tenant_label,
            ledger=_ledger_path(ledger, settings),
            admin_key=_secret(admin_key, settings.admin_key),
            health_port=_first(health_port, settings.health_port, 0),
            live_seconds=settings.live_seconds,
            start_seconds=settings.start_seconds,
            edge=settings.edge,
            link=link,
            listens=link is None or port is not None or settings.port is not None,
        )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _secret(given: str | None, setting: SecretStr | None) -> str | None:
    # An empty argument turns the secret of the environment off.
    if given is not None:
        return given or None
    return None if setting is None else setting.get_secret_value()


def _room_urls(given: Sequence[str] | None, settings: Settings) -> Sequence[str]:
    if isinstance(given, str):
        return given  # refused with a text that says what was expected
    urls = list(given) if given is not None else (settings.allowed_room_urls or "").split(",")
    return [settings.api_url, *(url.strip() for url in urls if url.strip())]


def _process_options(given: int | ProcessOptions | None, settings: Settings) -> ProcessOptions:
    if isinstance(given, ProcessOptions):
        return given
    return ProcessOptions(
        size=settings.process_pool if given is None else given,
        memory_mb=settings.process_memory_mb,
        stuck_seconds=settings.process_stuck_seconds,
        max_running=settings.max_processes,
        start=settings.process_start,
        isolation_uid=settings.isolation_uid,
    )


def _default_quota(settings: Settings) -> TenantQuota:
    return TenantQuota(
        max_agents=settings.tenant_max_agents,
        starts_per_second=settings.tenant_starts_per_second,
        max_waiting=settings.tenant_max_waiting,
        memory_mb=settings.tenant_memory_mb,
    )


def _link(
    room_server: str | None,
    api_key: str | None,
    rooms: Sequence[str] | None,
    labels: Mapping[str, str] | None,
    settings: Settings,
) -> LinkTo | None:
    url = _first(room_server, settings.room_server)
    if not url:  # an empty argument turns the link of the environment off
        return None
    return LinkTo(
        url,
        _secret(api_key, settings.api_key) or "",
        rooms=_listed(settings.link_rooms) if rooms is None else rooms,
        labels=_labels(settings.labels) if labels is None else dict(labels),
    )


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _labels(text: str | None) -> dict[str, str]:
    pairs = [part.partition("=") for part in _listed(text)]
    if any(not equals or not name.strip() for name, equals, _ in pairs):
        raise SettingsError(f"MESHHOST_LABELS: expected name=value pairs separated by commas, not {text!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _ledger_path(given: str | Path | None, settings: Settings) -> Path | None:
    path = _first(given, settings.ledger)
    if path in (None, "", "0", "off"):
        return None
    if path in ("1", "on"):
        path = settings.data_dir / "host-ledger.db"
    return Path(path).expanduser()
