"""Builds a room server from settings and files: the one place where its stores, queues and providers are wired together.

Used by `meshhost room serve`, by `meshhost service run`, and by `meshhost.testing.server`. `open_room_server` opens the parts
in the order in which they depend on each other and closes them in the reverse order. Parts get plain values; only here are
settings, `meshhost.toml` and secret files read.
"""

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from meshhost.app.built_in.process import BuiltInHost
from meshhost.app.config_file import ProviderEntry, ServerFile, oidc_config, read_secret_file
from meshhost.app.engines import ENGINES, EngineMaker, EngineRequest, make_engine
from meshhost.app.project import RecentKeys
from meshhost.app.running_hosts import running_hosts
from meshhost.errors import SettingsError
from meshhost.gateway.local.provider import LocalProvider
from meshhost.gateway.meter import Meter
from meshhost.gateway.operations import AUDIO
from meshhost.gateway.provider import Provider, ProviderTable
from meshhost.gateway.providers.anthropic import AnthropicProvider
from meshhost.gateway.providers.forwarding import TenantKey
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.identity.keys import ApiKey
from meshhost.protocol.frames import Limits
from meshhost.queues.bodies import LargeBodies
from meshhost.queues.over_engine import queue_service
from meshhost.quotas.counts import TenantCounts
from meshhost.server.config import LivekitConfig, OidcConfig, ServerConfig
from meshhost.server.configured.key_files import sealing_keys
from meshhost.server.configured.sealing import Sealer
from meshhost.server.configured.secrets import Secrets
from meshhost.server.data.counts import tenant_counts
from meshhost.server.server import RoomServer
from meshhost.settings import Settings, object_store_environment, read_settings
from meshhost.stores.bodies.objects import BodyObjects
from meshhost.stores.document_files import FilesAndDocuments
from meshhost.stores.engine import Engine
from meshhost.stores.files import open_object_store
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.listing.area import ObjectArea
from meshhost.stores.queues import QueueLimits
from meshhost.stores.sqlite.traces import SqliteTraceStore
from meshhost.stores.traces.contract import TraceStore
from meshhost.tables.store import LanceTables

__all__ = ["ServerOptions", "limits_of", "open_room_server", "providers_of"]

# Room for what surrounds a queue's message when it is delivered: header, attempt, lease.
_ENVELOPE_BYTES = 64 * 1024
# Not `.db`: those are checked and backed up, and traces are worth neither.
_TRACES_FILE = "traces.sqlite"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a room server listens and keeps its data.

    Port 0 takes a free one. `file` is the content of `meshhost.toml`; `providers` replaces the model providers that the file
    and the environment name; `extra_keys` returns API keys that are accepted besides the stored ones; `operator_key` is
    the key that manages tenants; `links` lets hosts dial in also where the file does not; `engines` are the
    engines that `database_url` may name, by the scheme of the URL.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: Path = Path(".meshhost")
    database_url: str | None = None
    file: ServerFile = field(default_factory=ServerFile)
    providers: ProviderTable | None = None
    extra_keys: Callable[[], list[ApiKey]] | None = None
    operator_key: str | None = field(default=None, repr=False)
    links: bool = False
    engines: Mapping[str, EngineMaker] = field(default_factory=lambda: ENGINES, repr=False)


@asynccontextmanager
async def open_room_server(options: ServerOptions) -> AsyncIterator[RoomServer]:
    """Start a room server, and stop it when the block is left. Raises SettingsError when it cannot run."""
    settings = read_settings()
    _make_data_dir(options.data_dir)
    has_former_life = any(options.data_dir.iterdir())
    engine = make_engine(
        EngineRequest(options.database_url, options.data_dir, limits_of(options.file)), options.engines
    )
    secrets = Secrets(engine.configuration, _sealer(settings, may_make_key=engine.name == "sqlite"))
    providers = options.providers or providers_of(options.file, settings, secrets)
    location = options.file.storage.url or options.data_dir / "storage"
    store = open_object_store(location)
    built_ins = _built_ins(options, settings, room_server=lambda: server.local_url)
    config = _config(options, settings, has_former_life=has_former_life, built_ins=built_ins)
    identity = IdentityService(
        engine.identity,
        extra_keys=options.extra_keys or RecentKeys(),
        default_secret=settings.secret.get_secret_value() if settings.secret else None,
        default_quota=options.file.quota.server_quota(),
    )
    engine.weights.follow(lambda tenant: identity.quota_of(tenant).weight)
    files, objects = FilesAndDocuments(store, engine.documents), BodyObjects(store)
    tables = LanceTables(
        ObjectArea(store, "tables"),
        location,
        limits=options.file.tables.limits(config.limits.message_bytes - _ENVELOPE_BYTES),
        environment=object_store_environment(),
    )
    async with (
        engine,
        identity,
        tables,
        tenant_counts(identity, engine, files, objects, tables) as counts,
        queue_service(
            engine,
            lease_seconds=config.lease_seconds,
            counts=counts,
            bodies=_bodies(options.file, engine, objects, counts),
        ) as queues,
        Meter(engine.usage, prices={entry.models: entry.price() for entry in options.file.prices}) as meter,
        _traces(options) as traces,
    ):
        server = RoomServer(
            config,
            queues=queues,
            documents=engine.documents,
            files=files,
            identity=identity,
            providers=providers,
            meter=meter,
            counts=counts,
            triggers=engine.triggers,
            configuration=engine.configuration,
            secrets=secrets,
            traces=traces,
            tables=tables,
        )
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
            if built_ins is not None:
                await built_ins.stop()
            await providers.stop()


def _built_ins(options: ServerOptions, settings: Settings, *, room_server: Callable[[], str]) -> BuiltInHost | None:
    """The owner of the host of built-in agents, which gets of our environment only how to log and which model to ask."""
    if not options.file.built_in.enabled:
        return None
    environment = {"MESHHOST_LOG_LEVEL": settings.log_level, "MESHHOST_LOG_FORMAT": settings.log_format}
    if settings.openai_model is not None:
        environment["OPENAI_MODEL"] = settings.openai_model
    return BuiltInHost(room_server=room_server, limits=options.file.built_in.limits(), environment=environment)


def _config(
    options: ServerOptions, settings: Settings, *, has_former_life: bool, built_ins: BuiltInHost | None
) -> ServerConfig:
    file = options.file
    # A queue must not accept a message that the server could never deliver: MeshAgent's clients get it whole, in a header.
    if file.queues.max_message_bytes + _ENVELOPE_BYTES > file.server.max_message_bytes:
        raise SettingsError(
            f"queues.max_message_bytes: expected at most server.max_message_bytes less {_ENVELOPE_BYTES} for headers"
        )
    if file.server.max_message_bytes > file.server.max_in_flight_bytes:
        raise SettingsError("server.max_in_flight_bytes: expected at least server.max_message_bytes")
    return ServerConfig(
        host=options.host,
        port=options.port,
        public_url=file.server.public_url,
        limits=Limits(message_bytes=file.server.max_message_bytes, header_bytes=file.server.max_header_bytes),
        max_in_flight_bytes=file.server.max_in_flight_bytes,
        message_seconds=file.server.message_seconds,
        edge=file.edge.limits(settings.edge),
        resume_seconds=file.server.resume_seconds,
        linger_seconds=file.server.linger_seconds,
        # Only a server that ran before has agents that may come back.
        return_seconds=file.server.resume_seconds if has_former_life else 0.0,
        max_upload_bytes=file.server.max_upload_bytes,
        services=file.configured_services(),
        webhook_urls=file.webhooks.urls,
        webhook_secret=read_secret_file(file.webhooks.secret_file),
        call_urls=file.server.call_urls,
        oauth=file.server.oauth if "oauth" in file.server.model_fields_set else None,
        require_token_expiry=file.server.require_token_expiry,
        operator_key=options.operator_key,
        oidc=_oidc(options, settings),
        host_admin_key=settings.admin_key.get_secret_value() if settings.admin_key else None,
        local_hosts=functools.partial(running_hosts, settings.config_dir),
        tenant_labels=file.server.tenant_labels,
        tenant_label=file.server.tenant_label,
        series_file=options.data_dir / "queue-series.json",
        # Base64 takes four bytes for three.
        mail=file.mail.config((file.queues.max_message_bytes - _ENVELOPE_BYTES) // 4 * 3),
        livekit=_livekit(settings),
        traces_per_second=file.traces.per_second,
        failed_traces_per_second=file.traces.failed_per_second,
        built_ins=built_ins,
        links=file.links.config() if file.links.enabled or options.links else None,
    )


def _sealer(settings: Settings, *, may_make_key: bool) -> Sealer:
    """What encrypts secrets. Servers that share a database must be given the same key; one over SQLite makes its own."""
    given = settings.secrets_key.get_secret_value() if settings.secrets_key else None
    own = settings.config_dir / "secrets.key" if may_make_key else None
    return Sealer(sealing_keys(given, settings.secrets_key_file, own=own))


@asynccontextmanager
async def _traces(options: ServerOptions) -> AsyncIterator[TraceStore | None]:
    """The store of traces, if they are kept. A file that cannot be used costs the traces, not the server."""
    path = options.data_dir / _TRACES_FILE
    if not options.file.traces.keep:
        yield None
        return
    store = SqliteTraceStore(path, options.file.traces.limits())
    try:
        await store.open()
    except (SettingsError, OSError) as error:
        logger.warning("no traces are recorded", extra={"path": str(path), "reason": str(error)})
        yield None
        return
    try:
        yield store
    finally:
        await store.close()


def _bodies(file: ServerFile, engine: Engine, objects: BodyObjects, counts: TenantCounts) -> LargeBodies:
    """The large bodies of queues, in the object store of the files."""
    return LargeBodies(
        engine.queues,
        objects,
        inline_bytes=file.queues.inline_bytes,
        max_bytes=file.queues.max_message_bytes,
        counts=counts,
    )


def _oidc(options: ServerOptions, settings: Settings) -> OidcConfig | None:
    config = oidc_config(options.file.studio.oidc, settings.studio_oidc)
    if config is not None and options.operator_key is None:
        raise SettingsError("studio.oidc: it needs the operator's key, which its sessions are bound to")
    if config is not None and find_spec("cryptography") is None:
        raise SettingsError("studio.oidc: checking signatures needs a library more: pip install 'meshhost[oidc]'")
    return config


def _livekit(settings: Settings) -> LivekitConfig:
    key, secret = settings.livekit_api_key, settings.livekit_api_secret
    return LivekitConfig(
        settings.livekit_url, key.get_secret_value() if key else None, secret.get_secret_value() if secret else None
    )


def _make_data_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"cannot make the data directory {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise SettingsError(f"the data directory {path} is not writable")


def limits_of(file: ServerFile) -> QueueLimits:
    """The limits of queues that the file sets, else the usual ones."""
    queues = file.queues
    return QueueLimits(
        max_attempts=queues.max_attempts,
        max_interruptions=queues.max_interruptions,
        max_depth=queues.max_depth,
        max_message_bytes=queues.max_message_bytes,
    )


def providers_of(file: ServerFile, settings: Settings, secrets: Secrets | None = None) -> ProviderTable:
    """Return the providers of the file. If it has none: those whose keys are in the environment, else the small local model.

    `secrets` are those in which tenants bring keys of their own.
    """
    if file.providers:
        extra = AUDIO if any(entry.audio for entry in file.providers) else frozenset[str]()
        providers = {entry.models: _provider(entry, settings, secrets) for entry in file.providers}
        return ProviderTable(providers, extra_operations=extra)
    found: dict[str, Provider] = {}
    if settings.anthropic_api_key is not None:
        found["claude-*"] = _provider(ProviderEntry(kind="anthropic"), settings)
    if settings.openai_api_key is not None or settings.openai_base_url is not None:
        found["*"] = _provider(ProviderEntry(base_url=settings.openai_base_url), settings)
    return ProviderTable(found or {"*": _local(settings)})


def _provider(entry: ProviderEntry, settings: Settings, secrets: Secrets | None = None) -> Provider:
    if entry.kind == "local":
        return _local(settings)
    is_anthropic = entry.kind == "anthropic"
    api_key = read_secret_file(entry.api_key_file)
    if api_key is None:
        key = settings.anthropic_api_key if is_anthropic else settings.openai_api_key
        api_key = key.get_secret_value() if key else "none"
    if is_anthropic:
        return AnthropicProvider(
            name="anthropic",
            base_url=entry.base_url or "https://api.anthropic.com/v1",
            api_key=api_key,
            default_model=entry.default_model or settings.anthropic_model,
            tenant_key=_tenant_key(entry, secrets),
        )
    return OpenAICompatibleProvider(
        name="openai",
        base_url=entry.base_url or "https://api.openai.com/v1",
        api_key=api_key,
        api=entry.api,
        default_model=entry.default_model or settings.openai_model,
        tenant_key=_tenant_key(entry, secrets),
    )


def _tenant_key(entry: ProviderEntry, secrets: Secrets | None) -> TenantKey | None:
    name = entry.api_key_secret
    if name is None or secrets is None:
        return None
    return lambda tenant: secrets.value(tenant, name, "api_key")


def _local(settings: Settings) -> LocalProvider:
    return LocalProvider(model_path=settings.local_model, threads=min(os.cpu_count() or 1, 4))
