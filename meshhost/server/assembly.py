"""Assembles a room server: makes every part and connects it to the parts that it needs.

Nothing is started here and nothing is registered by import: `assemble` makes the parts in the order of their dependencies and
returns the few that `RoomServer` starts and stops. The services and dialects of every server are listed here; those that a
program adds are passed in. This is the only module of `server/` that imports both services and HTTP.

Longer than 400 lines because every part of the server is named here once, in one order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from meshhost.edge.encodings import refuse_compressed
from meshhost.edge.watched import watch_requests
from meshhost.gateway.meter import Meter
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.routes import add_gateway_routes
from meshhost.queues.activity.series import QueueSeries
from meshhost.queues.service import QueueService
from meshhost.quotas.counts import TenantCounts
from meshhost.quotas.in_flight import InFlight
from meshhost.quotas.rates import TenantRates
from meshhost.server.address import Address
from meshhost.server.calling.built_in import BuiltInCaller
from meshhost.server.calling.caller import ServiceCaller
from meshhost.server.calling.linked import LinkedHosts
from meshhost.server.calling.service import CallingService
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import ConfiguredService, ServerConfig
from meshhost.server.configured.assembly import Configured
from meshhost.server.configured.secrets import Secrets
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.dispatch import Dispatcher
from meshhost.server.core.ownership import CountedOwnership, RoomOwnership
from meshhost.server.core.service import RoomService, ServiceSet
from meshhost.server.data.deletion import Deletions
from meshhost.server.data.exports import Exports
from meshhost.server.data.imports import Imports
from meshhost.server.data.kept import Kept
from meshhost.server.http.access import Access
from meshhost.server.http.archives import ArchiveRoutes
from meshhost.server.http.bodies import BodyReader
from meshhost.server.http.configured.secrets import SecretRoutes
from meshhost.server.http.configured.services import ServiceRoutes
from meshhost.server.http.configured.webhooks import WebhookRoutes
from meshhost.server.http.errors import errors_as_json
from meshhost.server.http.files import FileRoutes
from meshhost.server.http.health import HealthRoutes
from meshhost.server.http.login import LoginRoutes
from meshhost.server.http.queues import QueueRoutes
from meshhost.server.http.rest import RestRoutes
from meshhost.server.http.sessions import Sessions
from meshhost.server.http.sockets import RoomSockets
from meshhost.server.http.tenants import TenantRoutes
from meshhost.server.http.triggers.hooks import HookRoutes
from meshhost.server.http.triggers.mailboxes import MailboxRoutes
from meshhost.server.http.triggers.messages import MessageRoutes
from meshhost.server.http.triggers.scheduled_tasks import ScheduledTaskRoutes
from meshhost.server.http.triggers.schedules import ScheduleRoutes
from meshhost.server.http.usage import UsageRoutes
from meshhost.server.joining import Joining
from meshhost.server.links.routes import LinkRoutes
from meshhost.server.mail.listener import MailPorts
from meshhost.server.mcp.oauth import OAuthRoutes, room_of_resource
from meshhost.server.mcp.routes import MAX_BODY_BYTES, McpRoutes
from meshhost.server.metrics import ServerMetrics
from meshhost.server.queue_metrics import QueueMeter
from meshhost.server.series_file import SeriesFile
from meshhost.server.services.agents.service import AgentsService
from meshhost.server.services.bodies.transfer import BodyTransfer
from meshhost.server.services.developer import DeveloperService
from meshhost.server.services.documents.service import MAX_DOCUMENT_BYTES, DocumentsService
from meshhost.server.services.livekit import LivekitService
from meshhost.server.services.messaging import MessagingService
from meshhost.server.services.queues import QueuesService
from meshhost.server.services.schedules import SchedulingService
from meshhost.server.services.storage.service import StorageService
from meshhost.server.services.tables.service import TablesService
from meshhost.server.services.work import WorkService
from meshhost.server.studio.codes import OneTimeCodes
from meshhost.server.studio.events import EventRoutes
from meshhost.server.studio.hosts import Hosts
from meshhost.server.studio.oidc import OidcRoutes
from meshhost.server.studio.overview import OverviewRoutes
from meshhost.server.studio.pages import PageRoutes
from meshhost.server.studio.room_log import RoomLog, RoomLogRoutes
from meshhost.server.studio.search import SearchRoutes
from meshhost.server.studio.signing_in import SigningIn
from meshhost.server.studio.traces import TraceRoutes
from meshhost.server.tenant_metrics import TenantUseCollector
from meshhost.server.traces.gateway import GatewayTraces
from meshhost.server.traces.messages import MessageTraces, trace_messages
from meshhost.server.traces.recorder import TraceRecorder
from meshhost.server.traces.service import TracesService
from meshhost.server.voice.routes import VoiceRoutes
from meshhost.server.waking import Waking
from meshhost.server.wire.dialect import Dialect, Dialects
from meshhost.server.wire.sdk056 import SDK_056
from meshhost.server.wire.sdk06 import SDK_06
from meshhost.stores.configuration.contract import ConfigurationStore
from meshhost.stores.documents import DocumentStore
from meshhost.stores.files import RoomFiles
from meshhost.stores.identity_service import IdentityService
from meshhost.stores.traces.contract import TraceStore
from meshhost.stores.triggers.contract import TriggerStore
from meshhost.tables.contract import TableStore
from meshhost.tenant_names import TenantLabels
from meshhost.triggers.hooks import Hooks
from meshhost.triggers.mailboxes import Mailboxes
from meshhost.triggers.scheduler import Scheduler
from meshhost.triggers.schedules import Schedules

__all__ = ["Engines", "Parts", "assemble"]

# What is reserved of a message's limit for everything that travels with a file or a document.
_ENVELOPE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Engines:
    """What a room server works on. Opened and closed by the caller."""

    queues: QueueService
    documents: DocumentStore
    files: RoomFiles
    identity: IdentityService
    providers: ProviderTable
    meter: Meter
    counts: TenantCounts
    triggers: TriggerStore
    configuration: ConfigurationStore
    secrets: Secrets
    traces: TraceStore | None = None
    tables: TableStore | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a server that are started and stopped, or that others ask."""

    app: web.Application
    directory: RoomDirectory
    services: ServiceSet
    sender: WebhookSender
    caller: ServiceCaller
    access: Access
    codes: OneTimeCodes
    log: RoomLog
    hosts: Hosts
    oidc: OidcRoutes
    metrics: ServerMetrics
    deletions: Deletions
    archives: Exports
    series: QueueSeries
    series_file: SeriesFile
    in_flight: InFlight
    mail: MailPorts
    traces: MessageTraces
    configured: Configured
    linked: LinkedHosts
    links: LinkRoutes


def assemble(
    config: ServerConfig,
    engines: Engines,
    address: Address,
    *,
    services: Sequence[RoomService],
    dialects: Sequence[Dialect],
    ownership: RoomOwnership,
) -> Parts:
    """Make the parts. `services` follow those of every server; `dialects` are asked before those of every server.

    Raises ValueError when two services offer an operation of the same name.
    """
    rates = TenantRates(engines.identity.quota_of)
    sessions = Sessions(engines.identity, operator_key=config.operator_key, own_url=lambda: address.url)
    access = Access(
        engines.identity,
        operator_key=config.operator_key,
        rates=rates,
        requires_expiry=config.require_token_expiry,
        sessions=sessions,
    )
    labels = TenantLabels(config.tenant_labels, label=config.tenant_label) if config.tenant_labels > 0 else None
    metrics, sender = ServerMetrics(tenants=labels), WebhookSender()
    if labels is not None:
        metrics.register(TenantUseCollector(engines.counts, labels))
    meter = QueueMeter(metrics.queue_label, tenants=labels)
    metrics.register(meter)
    engines.queues.observers.append(meter)
    files = FileRoutes(engines.files, access, address)

    def call_stored(services: Sequence[ConfiguredService]) -> None:
        all_services.find(CallingService).replace_stored(services, directory.rooms)

    configured = Configured(config, engines.configuration, engines.secrets, sender, on_services=call_stored)
    linked = LinkedHosts()
    caller = ServiceCaller(
        sender,
        tenant_calls=configured,
        services=config.services,
        times=config.call_times,
        key_for=access.key_for,
        call_urls=config.call_urls,
        call_secret=config.webhook_secret,
        count=metrics.count_call,
        return_seconds=config.return_seconds,
        linked=linked,
    )
    built_ins = None
    if config.built_ins is not None:
        built_ins = BuiltInCaller(
            sender,
            hosts=config.built_ins,
            key_for=access.key_for,
            local_room_url=address.local_room_url,
            count=metrics.count_call,
        )
    waking = Waking(engines.identity)
    transfer = BodyTransfer(engines.queues, counts=engines.counts)
    queues = QueuesService(
        engines.queues,
        transfer=transfer,
        receive_seconds=config.receive_seconds,
        lease_seconds=config.lease_seconds,
        blocked_seconds=config.blocked_seconds,
    )
    checks: Any = {"check_room": waking.check, "check_maker": waking.check_maker, "count": metrics.count_trigger}
    scheduler = Scheduler(engines.triggers, engines.queues, **checks)
    schedules = Schedules(engines.triggers, engines.queues, on_change=scheduler.wake, check_maker=waking.check_maker)
    log = RoomLog()
    traces = TraceRecorder(engines.traces, count=metrics.count_spans)
    message_traces = trace_messages(traces, engines.queues, config.traces_per_second, config.failed_traces_per_second)
    messaging = MessagingService(on_dismissed=queues.dismiss)
    all_services = ServiceSet(
        [
            # Messaging comes first: others learn that a participant is gone before its calls fail.
            messaging,
            queues,
            transfer,
            *_room_services(config, engines, files, caller, waking, log, built_ins),
            *([] if engines.tables is None else [TablesService(engines.tables, counts=engines.counts)]),
            WorkService(
                engines.queues,
                linger_seconds=config.linger_seconds,
                look_seconds=config.look_seconds,
                need=waking.need,
                is_awake=waking.is_awake,
            ),
            TracesService(traces),
            SchedulingService(scheduler, linger_seconds=config.linger_seconds),
            CallingService(
                caller,
                sender,
                webhook_urls=config.webhook_urls,
                webhook_secret=config.webhook_secret,
                dismiss=messaging.dismiss,
                on_event=configured.deliveries.send,
            ),
            *services,
        ]
    )
    directory = RoomDirectory(
        all_services,
        ownership=CountedOwnership(ownership, engines.counts),
        url_of=address.room_url,
        linger_seconds=config.linger_seconds,
        resume_seconds=config.resume_seconds,
    )
    waking.directory = directory
    # Also for keys that another server or process revoked: the identity service notices within 2 s.
    engines.identity.on_revoked(
        lambda key_ids: directory.close_participants(
            lambda participant: participant.key_id in key_ids, "the API key was revoked"
        )
    )
    kept = Kept(
        engines.identity,
        engines.queues,
        engines.documents,
        engines.files,
        engines.meter,
        engines.counts,
        engines.triggers,
        engines.configuration,
        traces,
        engines.tables,
    )
    deletions = Deletions(kept, directory)
    engines.identity.on_closed(deletions.end_rooms)
    exports = Exports(kept)
    imports = Imports(kept, directory, exports)
    in_flight = InFlight(config.max_in_flight_bytes, engines.identity.quota_of)
    metrics.show_in_flight(lambda: in_flight.total)
    joining = Joining(
        config,
        directory=directory,
        dialects=Dialects([*dialects, SDK_056, SDK_06]),
        operations=all_services.operations(),
        given_up=all_services.given_up,
        metrics=metrics,
        counts=engines.counts,
        rates=rates,
        in_flight=in_flight,
    )
    sockets = RoomSockets(config, access=access, joining=joining)
    links = LinkRoutes(config.links, access, joining, linked)
    engines.identity.on_revoked(links.end_of_keys)
    engines.identity.on_closed(links.end_of_tenants)
    calling = all_services.find(CallingService)
    linked.on_change = lambda: calling.linked_changed(directory)
    app = web.Application(middlewares=[errors_as_json, refuse_compressed])
    watch_requests(app)
    sockets.add_to(app)
    links.add_to(app)
    files.add_to(app)
    series = QueueSeries(engines.queues.stats)
    engines.queues.observers.append(series)
    QueueRoutes(access, engines.queues, series, is_stopping=lambda: directory.is_stopping).add_to(app)
    HealthRoutes(directory, engines.queues, metrics).add_to(app)
    rest = RestRoutes(access, directory, engines.queues, url_of=address.room_url, calls_of=caller.calls)
    UsageRoutes(engines.meter, access, rest.project).add_to(
        app
    )  # before REST, whose last route answers everything else
    ScheduledTaskRoutes(access, schedules, rest.project).add_to(app)
    SecretRoutes(access, configured.secrets, rest.project).add_to(app)
    ServiceRoutes(access, configured.services, rest.project).add_to(app)
    WebhookRoutes(access, configured.webhooks, rest.project).add_to(app)
    mailboxes = Mailboxes(engines.triggers, engines.queues, domains=config.mail.domains, **checks)
    MailboxRoutes(access, mailboxes, rest.project).add_to(app)
    mail = MailPorts(config.mail, mailboxes, login=access.token_holder, rates=rates, metrics=metrics)
    rest.add_to(app)
    ScheduleRoutes(access, schedules).add_to(app)
    bodies = BodyReader(
        in_flight,
        most_bytes=config.limits.message_bytes,
        seconds=config.message_seconds,
        bytes_per_second=config.edge.bytes_per_second,
    )
    MessageRoutes(access, engines.queues, bodies).add_to(app)
    McpRoutes(
        access,
        directory,
        all_services.find(AgentsService),
        BodyReader(
            in_flight,
            most_bytes=min(config.limits.message_bytes, MAX_BODY_BYTES),
            seconds=config.message_seconds,
            bytes_per_second=config.edge.bytes_per_second,
        ),
        engines.counts,
        address,
        is_arriving=caller.is_arriving,
        count=metrics.count_request,
        count_mcp=metrics.count_mcp,
        has_login=config.has_login,
    ).add_to(app)
    # Each message of a call counts as a request of its tenant, as those of participants do.
    talking = Dispatcher(messaging.operations(), count=metrics.count_request, rates=rates)
    VoiceRoutes(access, directory, talking, engines.counts, rates).add_to(app)
    hooks = Hooks(engines.triggers, engines.queues, **checks)
    HookRoutes(access, hooks, address, bodies, rates=rates).add_to(app)
    TenantRoutes(access, deletions, directory, engines.counts).add_to(app)
    ArchiveRoutes(access, exports, imports, in_flight).add_to(app)
    if config.has_login:
        LoginRoutes(
            access, own_url=lambda: address.url, room_of=lambda text: room_of_resource(address.url, text)
        ).add_to(app)
        OAuthRoutes(address).add_to(app)
    EventRoutes(access, directory, engines.queues, calls_of=caller.calls).add_to(app)
    OverviewRoutes(access, directory, engines.queues, caller, engines.counts).add_to(app)
    SearchRoutes(access, directory, engines.queues, engines.files, schedules).add_to(app)
    RoomLogRoutes(access, log).add_to(app)
    TraceRoutes(access, traces).add_to(app)
    hosts = Hosts(access, services=lambda: caller.services, local=config.local_hosts, admin_key=config.host_admin_key)
    hosts.add_to(app)
    codes = OneTimeCodes()
    oidc_name = None if config.oidc is None else config.oidc.name
    SigningIn(access, sessions, codes, address, oidc_name=oidc_name).add_to(app)
    oidc = OidcRoutes(config.oidc, sessions, engines.identity, address)
    oidc.add_to(app)
    PageRoutes().add_to(app)  # the last below /studio: it answers everything else there
    add_gateway_routes(
        app,
        providers=engines.providers,
        authenticate=access.gateway_caller,
        meter=engines.meter,
        hold=bodies.held,
        trace=GatewayTraces(traces).begin,
        check=access.check_gateway_caller,
    )
    return Parts(
        app,
        directory,
        all_services,
        sender,
        caller,
        access,
        codes,
        log,
        hosts,
        oidc,
        metrics,
        deletions,
        exports,
        series,
        SeriesFile(series, config.series_file),
        in_flight,
        mail,
        message_traces,
        configured,
        linked,
        links,
    )


def _room_services(
    config: ServerConfig,
    engines: Engines,
    files: FileRoutes,
    caller: ServiceCaller,
    waking: Waking,
    log: RoomLog,
    built_ins: BuiltInCaller | None,
) -> Sequence[RoomService]:
    """The other services of every room."""
    max_payload = config.limits.message_bytes - _ENVELOPE_BYTES
    return [
        StorageService(
            engines.files,
            sign_url=files.url_of,
            max_upload_bytes=config.max_upload_bytes,
            max_download_bytes=max_payload,
            counts=engines.counts,
        ),
        AgentsService(
            engines.files,
            call_seconds=config.call_seconds,
            call_out=caller.call_out,
            is_coming=caller.is_coming,
            need=waking.need,
            bring=None if built_ins is None else built_ins.bring,
        ),
        DeveloperService(on_entry=log.keep_entry, on_line=log.keep_line),
        LivekitService(config.livekit),
        # Updates travel as base64, which takes four bytes for three.
        DocumentsService(
            engines.documents,
            engines.files,
            max_bytes=min(MAX_DOCUMENT_BYTES, max_payload // 4 * 3),
            counts=engines.counts,
        ),
    ]
