"""The reference of settings: environment variables (`meshhost.settings.Settings`) and the room server's TOML file.

Names, types, limits and defaults come from the models. The sentences in `VARIABLES` and `FILE` say what each is for; a name
in the code without a sentence, or a sentence without a name, raises `KeyError`.
"""

import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate.markdown import code, page, table
from meshhost.app.config_file import ServerFile
from meshhost.settings import Settings

__all__ = ["FILE", "VARIABLES", "pages"]

VARIABLES: dict[str, dict[str, str]] = {
    "Every program": {
        "MESHHOST_API_URL": "Address of the room server.",
        "MESHHOST_API_KEY": "API key to act with. Default: the key that `meshhost setup` stored.",
        "MESHHOST_ROOM": "Room that commands use when none is named; also marks the telemetry of an agent.",
        "MESHHOST_TOKEN": "A token that `meshhost.connect` and commands join rooms with, instead of signing one.",
        "MESHHOST_CONFIG_DIR": "Directory of `project.json`, which `meshhost setup` writes.",
        "MESHHOST_DATA_DIR": "Directory for data: queues, documents, files and identity of a room server, ledger of a host.",
        "MESHHOST_LOG_LEVEL": "Lowest level of log records that are written.",
        "MESHHOST_LOG_FORMAT": "`text`: a line for people; `json`: an object a line, with all fields and tracebacks.",
        "MESHHOST_PROJECT_ID": "Project id that telemetry of an agent is marked with.",
        "MESHHOST_SESSION_ID": "Session id that telemetry of an agent is marked with.",
        "OTEL_ENDPOINT": "OTLP/HTTP collector for traces. `OTEL_EXPORTER_OTLP_ENDPOINT` is read too. Default: no export.",
    },
    "Agents that answer mail": {
        "MESHHOST_MAIL_DOMAIN": "Domain of the mail addresses of rooms, and the SMTP server of agents that name none.",
        "SMTP_HOSTNAME": "SMTP server that takes the mail of agents. Default: the mail domain.",
        "SMTP_PORT": "Its port. Default: 587. To 465, TLS is spoken from the first byte.",
        "SMTP_USERNAME": "Name to log in with. Default: the participant's name.",
        "SMTP_PASSWORD": "Password to log in with. Default: the participant's token, which is shown to the mail domain, to the "
        "room server's host and to this machine only.",
        "SMTP_LOCAL_HOSTNAME": "Name that agents give in their greeting. Default: that of the machine.",
    },
    "Room server": {
        "MESHHOST_DATABASE_URL": "Where all but files is stored: `postgresql://user:password@host/database`. Or the file of "
        "the queues alone: `sqlite:///relative` or `sqlite:////absolute`. Default: files in the data directory.",
        "MESHHOST_OPERATOR_KEY": "Key that manages tenants: for the server, and for `meshhost tenant` and `key`. Default: "
        "`operator.key` in the configuration directory, which `meshhost room serve` writes.",
        "MESHHOST_STUDIO_LINK": "When a server that starts prints a link that signs a browser in to Studio, once: on a "
        "`terminal`, `always` or `never`. `meshhost studio` prints one at any time.",
        "MESHHOST_STUDIO_OIDC_ISSUER": "Provider of OpenID Connect by which people sign in to Studio: its issuer. These go "
        "before the table `[studio.oidc]` of the room server's file, member by member; without it, issuer, client id and roles "
        "are needed.",
        "MESHHOST_STUDIO_OIDC_CLIENT_ID": "What the provider knows the room server as.",
        "MESHHOST_STUDIO_OIDC_CLIENT_SECRET": "The client's secret.",
        "MESHHOST_STUDIO_OIDC_CLIENT_SECRET_FILE": "File with the client's secret, instead of the secret itself.",
        "MESHHOST_STUDIO_OIDC_NAME": "The provider's name on the button. Default: single sign-on.",
        "MESHHOST_STUDIO_OIDC_SCOPES": "What is asked of the provider. Default: `openid email profile`.",
        "MESHHOST_STUDIO_OIDC_GROUPS_CLAIM": "The claim with a person's groups. Default: `groups`.",
        "MESHHOST_STUDIO_OIDC_ROLES": "Roles of the provider's groups as JSON, of which the first that fits counts: "
        '`[{"group": "dev", "role": "developer", "tenant": "acme"}]`.',
        "MESHHOST_SECRETS_KEY": "Keys that encrypt the secrets of tenants.",
        "MESHHOST_SECRETS_KEY_FILE": "A file with these keys.",
        "MESHHOST_SECRET": "Secret of participant tokens that name no API key.",
        "OPENAI_API_KEY": "Key for the model provider.",
        "OPENAI_BASE_URL": "Address of an OpenAI-compatible provider. With neither this nor `OPENAI_API_KEY` set, "
        "the local model is used.",
        "OPENAI_MODEL": "Model used when a request names none.",
        "ANTHROPIC_API_KEY": "Key for Anthropic, which serves `claude-*` then, if the file names no providers.",
        "ANTHROPIC_MODEL": "Model of an `AnthropicMessagesAdapter` that names none.",
        "LIVEKIT_URL": "LiveKit server that voice may go through, as its clients reach it: `wss://…`. With key and secret, "
        "`livekit.connect` is answered.",
        "LIVEKIT_API_KEY": "API key of that LiveKit server.",
        "LIVEKIT_API_SECRET": "Secret of that key; it never leaves the room server.",
        "MESHHOST_LOCAL_MODEL": "GGUF file of the local model. Default: the installed one.",
    },
    "Room server and service host": {
        "MESHHOST_EDGE_HEADER_SECONDS": "Seconds that the headers of a request have to arrive.",
        "MESHHOST_EDGE_BODY_IDLE_SECONDS": "Seconds that the body of a request may pause; then 408.",
        "MESHHOST_EDGE_BYTES_PER_SECOND": "Slowest sender: a body or message has a second more for each of so many bytes.",
        "MESHHOST_EDGE_MAX_BODY_BYTES": "Bytes of bodies that arrive, all together; not of messages, files and archives.",
        "MESHHOST_EDGE_MAX_CONNECTIONS": "Connections that may be open. Default: 80 % of the file descriptors.",
        "MESHHOST_EDGE_MAX_INCOMPLETE": "Connections whose headers are incomplete; the oldest are dropped.",
        "MESHHOST_EDGE_MAX_INCOMPLETE_PER_ADDRESS": "Those from one address; from this machine's own, as many as in all.",
        "MESHHOST_EDGE_NEWCOMER_SHARE": "Share of the event loop's time for connections of nobody known, beside other work.",
    },
    "Service host": {
        "MESHHOST_HOST": "Address to listen on for calls. Default: 127.0.0.1.",
        "MESHHOST_PORT": "Port to listen on for calls. Default: 8081 with `host.run()`, else a free one.",
        "MESHHOST_WEBHOOK_SECRET": (
            "Secret that signs calls. Without one the host accepts calls from programs of its own machine only, "
            "and none that a proxy forwards."
        ),
        "MESHHOST_ALLOWED_ROOM_URLS": "Room servers that a call may name besides `MESHHOST_API_URL`, separated by commas.",
        "MESHHOST_ROOM_SERVER": "Room server at which the host dials in, with MESHHOST_API_KEY. Default: it is called by HTTP.",
        "MESHHOST_LINK_ROOMS": "Rooms, by name or pattern, separated by commas, into which agents of such a host are called.",
        "MESHHOST_LABELS": "Labels of such a host, as `gpu=true,zone=a`, which services may require.",
        "MESHHOST_MAX_AGENTS": "Agents that may live on the host at once.",
        "MESHHOST_DRAIN_SECONDS": "Seconds that agents may take to leave when the host stops; a path can have its own.",
        "MESHHOST_LEDGER": "File that keeps which agents shall live and which tenants are frozen, over restarts. `on`: "
        "`host-ledger.db` in the data directory. It holds tokens. Default: off.",
        "MESHHOST_ADMIN_KEY": "Key for the operator's routes. Without one they answer the host's own machine only.",
        "MESHHOST_HOST_URL": "Where `meshhost host` finds the host. Default: what `service run` started, else port 8081.",
        "MESHHOST_MAX_STARTS": "Agents that may be starting at once.",
        "MESHHOST_TENANT_MAX_AGENTS": "Agents of one tenant. Default: no limit.",
        "MESHHOST_TENANT_STARTS_PER_SECOND": "Starts per second of one tenant. Default: no limit.",
        "MESHHOST_TENANT_MAX_WAITING": "Agents of one tenant that may wait for their turn to start.",
        "MESHHOST_TENANT_MEMORY_MB": "Memory of one tenant's agents in processes, together. Default: no limit.",
        "MESHHOST_TENANT_LABELS": "Tenants that have their own label in `/metrics`; 0 for none.",
        "MESHHOST_TENANT_LABEL": "What that label shows: the `id`, which never changes, or the present `name`.",
        "MESHHOST_PROCESS_POOL": 'Warm processes kept ready for paths with `isolation="process"`.',
        "MESHHOST_PROCESS_START": "How such a process starts: `fork` from a template, `boot` on its own, `auto` forks where "
        "that is safe.",
        "MESHHOST_ISOLATION_UID": "User that these processes run as, where the host is root. Default: the host's own user; "
        "then processes isolate crashes, not secrets.",
        "MESHHOST_MAX_PROCESSES": "Agents that may live in processes of their own.",
        "MESHHOST_PROCESS_MEMORY_MB": "Memory at which a process is ended. Default: no limit.",
        "MESHHOST_PROCESS_STUCK_SECONDS": "Seconds without an answer after which a process is ended.",
        "MESHHOST_BLOCK_SECONDS": "Seconds an agent may hold the event loop before it is reported.",
        "MESHHOST_HEALTH_PORT": "Port that answers `/livez` and `/readyz` also while the event loop is held. Default: none.",
        "MESHHOST_LIVE_SECONDS": "Seconds the event loop may be held before `/livez` answers 503.",
        "MESHHOST_START_SECONDS": "Seconds the first process may take before the log says what is missing.",
    },
}

FILE: dict[str, str] = {
    "studio.oidc.issuer": "A provider of OpenID Connect by which people sign in to Studio: its issuer, as it is in its "
    "configuration (`/.well-known/openid-configuration`). Needs `pip install 'meshhost[oidc]'` and the operator's key. The "
    "address to register there is `PUBLIC_URL/studio/api/oidc/callback`.",
    "studio.oidc.client_id": "What the provider knows this server as.",
    "studio.oidc.client_secret_file": "File with the client's secret. Default: none, for a public client.",
    "studio.oidc.name": "The provider's name on the button.",
    "studio.oidc.scopes": "What is asked of the provider; some give groups only for a scope of theirs.",
    "studio.oidc.groups_claim": "The claim of the ID token that has the person's groups.",
    "studio.oidc.roles.group": "A group of the provider. The first entry for one of a person's groups counts.",
    "studio.oidc.roles.role": "What its members may do: viewer, developer, admin, or operator of the installation.",
    "studio.oidc.roles.tenant": "The tenant of the role, by name or id; none for the operator.",
    "server.public_url": "Address at which participants reach the server, when it is not the one it listens on.",
    "server.linger_seconds": "Seconds a room stays open after its last participant that no service brought has left.",
    "server.resume_seconds": "Seconds in which a participant whose connection was lost can return as the same participant.",
    "server.max_message_bytes": "Largest message between participant and server.",
    "server.max_header_bytes": "Largest JSON header of a message from a participant. Messages of queues, arguments and JSON "
    "answers of tools travel in it.",
    "server.max_in_flight_bytes": "Bytes of messages that are received, handled or sent, of all tenants. One without room "
    "waits up to 10 s and is then refused.",
    "server.message_seconds": "Seconds that a message has to arrive, and one more for every `edge.bytes_per_second` of it.",
    "server.max_upload_bytes": "Largest file.",
    "server.call_urls": "URL prefixes of hosts that participants may call by `agent.call`.",
    "server.oauth": "Whether the login of the MeshAgent CLI's `setup` is served. It answers this machine only.",
    "server.require_token_expiry": "Whether tokens that never expire are refused. Those that MeshAgent's SDK signs have no end "
    "unless the program gives one.",
    "server.tenant_labels": "Tenants that have their own label in `/metrics`, which everybody may read; 0 for none.",
    "server.tenant_label": "What that label shows: the `id`, which never changes, or the present `name`.",
    "edge.header_seconds": "Seconds that the headers of a request have to arrive.",
    "edge.body_idle_seconds": "Seconds that the body of a request may pause; then 408.",
    "edge.bytes_per_second": "Slowest sender: a body or message has a second more for each of so many bytes.",
    "edge.max_connections": "Connections that may be open. Default: 80 % of the file descriptors.",
    "edge.max_incomplete": "Connections whose headers are incomplete; the oldest are dropped.",
    "edge.max_incomplete_per_address": "Those from one address; from this machine's own, as many as in all.",
    "edge.max_body_bytes": "bodies that arrive, all together; not messages, files and archives",
    "edge.newcomer_share": "Share of the event loop's time for connections of nobody known, beside other work.",
    "queues.max_attempts": "Failed attempts after which a message is dead-lettered.",
    "queues.max_interruptions": "Deliveries that end interrupted or expired after which a message is dead-lettered as poison.",
    "queues.max_depth": "Most messages in one queue.",
    "queues.max_message_bytes": "Largest queue message.",
    "queues.inline_bytes": "Largest body of a message that is kept in the database; a larger one goes to the object store.",
    "quota.max_rooms": "Rooms that one tenant may have open.",
    "quota.max_connections": "Connections of participants that one tenant may have open.",
    "quota.max_agents": "Agents of one tenant that may be connected, over all hosts.",
    "quota.max_queues": "Queues of one tenant.",
    "quota.max_messages": "Messages in all queues of one tenant, dead ones included.",
    "quota.max_stored_bytes": "Bytes of one tenant's files and tables. Default: no limit.",
    "quota.max_files": "Files of one tenant. Default: no limit.",
    "quota.max_documents": "Documents of one tenant.",
    "quota.max_tables": "Tables of one tenant.",
    "quota.max_keys": "API keys of one tenant.",
    "quota.max_uploads": "Uploads of one tenant in progress.",
    "quota.max_in_flight_bytes": "Bytes of one tenant's messages that are received, handled or sent.",
    "quota.weight": "Turns that one tenant has in the stores for each one of a tenant of weight 1, while several want them.",
    "quota.requests_per_second": "Requests of one tenant per second, by REST and in rooms. Default: no limit.",
    "quota.connections_per_second": "New connections of one tenant's participants per second. Default: no limit.",
    "traces.keep": "Whether the server keeps traces, in `traces.sqlite` of its data directory.",
    "traces.per_second": "Messages per second that are traced, of each tenant; 0 for none.",
    "traces.failed_per_second": "Traces per second of messages that fail and were not traced, of each tenant; 0 for none.",
    "traces.max_mb": "Megabytes of spans that are kept; over it, the tenant that has most loses its oldest traces.",
    "traces.tenant_mb": "Megabytes of spans that a tenant may have; over it, it loses its oldest traces.",
    "traces.days": "Days after which a trace is forgotten.",
    "tables.processes": "Processes for tables at once. Each tenant that uses tables needs one.",
    "tables.memory_mb": "Megabytes of memory of such a process; one that needs more is ended.",
    "tables.threads": "Threads of such a process that compute. Default: half of the processors.",
    "tables.query_seconds": "Seconds that a search or a write may take.",
    "tables.index_seconds": "Seconds that making an index, optimizing, or changing columns may take.",
    "tables.concurrent": "Requests of one tenant that run beside each other.",
    "tables.waiting": "Requests of one tenant that may wait for these.",
    "built_in.enabled": "Whether rooms have the agents and toolkits that programs expect, such as `meshhost.planner`.",
    "built_in.idle_seconds": "Seconds without work after which one of them ends.",
    "built_in.max_agents": "How many of them live at once, in all rooms.",
    "built_in.max_agents_per_tenant": "How many of them live at once in the rooms of one tenant.",
    "storage.url": "Object store of files, such as `s3://bucket/prefix`. Default: `storage` in the data directory.",
    "webhooks.urls": "Addresses that receive `room.started` and `room.ended`.",
    "webhooks.secret_file": "File with the secret that signs webhooks and calls made by `agent.call`.",
    "mail.listen": "Address and port that take mail for mailboxes, such as `0.0.0.0:25`. Default: none. Needs `pip install "
    "'meshhost[mail]'`.",
    "mail.submission": "Address and port that take mail of participants, who log in with their tokens. Default: none.",
    "mail.protocol": "What `listen` speaks: SMTP, or LMTP behind a mail server of your own.",
    "mail.hostname": "Name of this mail server. Default: that of the machine.",
    "mail.domains": "Domains that mailboxes may have. Default: any.",
    "mail.certificate_file": "Certificate for STARTTLS, with its chain.",
    "mail.key_file": "Its private key. Default: it is in the same file.",
    "mail.require_tls": "Whether nothing is taken without TLS.",
    "mail.max_bytes": "Largest mail. Default: what fits into a queue's message (`queues.max_message_bytes`), in base64.",
    "mail.max_connections": "Connections that may be open.",
    "mail.max_connections_per_address": "Those from one address.",
    "mail.max_recipients": "Recipients of one mail; the sender sends the others another one.",
    "mail.max_unknown": "Recipients that do not exist, which one address may name in a minute.",
    "mail.mails_per_minute": "Mails of one address.",
    "mail.idle_seconds": "Seconds that a client may be silent.",
    "mail.bytes_per_second": "Slowest sender of a mail.",
    "mail.relay.host": "Mail server that takes what participants send to addresses that have no mailbox here.",
    "mail.relay.port": "Its port.",
    "mail.relay.username": "Name to log in with there.",
    "mail.relay.password_file": "File with the password.",
    "mail.relay.tls": "`required`: STARTTLS; `always`: TLS from the first byte; `auto`: STARTTLS if it is offered; `never`.",
    "mail.relay.verify": "Whether its certificate is checked.",
    "mail.dkim.domain": "Domain whose key signs what is relayed (DKIM).",
    "mail.dkim.selector": "Selector of the key: its public half is in DNS at `SELECTOR._domainkey.DOMAIN`.",
    "mail.dkim.key_file": "File with the private key, a PEM of RSA.",
    "links.enabled": "Whether service hosts may dial in.",
    "links.resume_seconds": "Seconds in which a host whose link was lost can go on with it; then its agents leave their rooms.",
    "links.max_per_tenant": "Links that hosts with keys of one tenant may have at a time.",
    "services.urls": "Hosts of the service, in order: when one fails, the next is called. Either this, `url` or `link`.",
    "services.link": "Name of the hosts that dial in for this service (`ServiceHost(name=…)`), instead of their addresses.",
    "services.requires": 'Labels that such a host must have, such as `{ gpu = "true" }`.',
    "services.url": "Host of the service.",
    "services.rooms": "Pattern of room names into which the service is called.",
    "services.secret_file": "File with the secret that signs calls to this service.",
    "services.secrets": "Secrets of each tenant whose members are in the `environment` of the call's arguments; a tenant "
    "without one of them is not called.",
    "services.paths.path": "Path that is called.",
    "services.paths.identity": "Name under which the agent joins.",
    "services.paths.api": "What the agent may do in the room (an `ApiScope`). Default: all but administration and secrets.",
    "services.paths.arguments": "Arguments of the call, which the agent can read.",
    "providers.models": "Pattern of model names that this provider serves.",
    "providers.kind": "`openai` for any OpenAI-compatible service, `anthropic` for one with Anthropic's Messages API, "
    "`local` for the small local model.",
    "providers.base_url": "Address of the provider, ending with its API's version. Default: that of OpenAI or Anthropic.",
    "providers.api": "What an OpenAI-compatible service speaks: `responses`, or `chat` (completions) only. Default: found "
    "out by the first request.",
    "providers.api_key_file": "File with the provider's key. Default: `OPENAI_API_KEY`, or `ANTHROPIC_API_KEY` for its kind.",
    "providers.api_key_secret": "Name of the secret in which a tenant may bring its own key for this provider; without it the "
    "provider's key is used.",
    "providers.audio": "Whether callers may use the provider's audio API too.",
    "providers.default_model": "Model used when a request names none. Default: `OPENAI_MODEL`.",
    "prices.models": "Name of a model, a prefix with `*` at its end, or `*`. An exact name wins, then the longest prefix.",
    "prices.currency": "Three capital letters.",
    "prices.input": "Price of a million tokens of input. Prices have at most 6 decimals.",
    "prices.cached_input": "Price of a million tokens that the provider read from its cache. Default: as other input.",
    "prices.cache_write": "Price of a million tokens that it wrote to its cache. Default: as other input.",
    "prices.output": "Price of a million tokens of output, those of reasoning included.",
}

_SETTINGS_INTRO = """
All variables are read from the environment; there is no other file that sets them. Each `MESHHOST_` name is also read as
`MESHAGENT_` when ours is unset, and an empty value counts as unset. `config/.env.example` lists them for `--env-file`.

A service host can be set up by [arguments of `ServiceHost`](service-host.md) instead; an argument wins over the variable.
The [room server's file](server-file.md) has what the room server does not take from the environment.
"""

_FILE_INTRO = """
`meshhost room serve --config FILE` reads this TOML file. Every table and member may be left out; a name that is not here is
an error. `config/meshhost.toml` has all of them with their defaults, `config/production.toml` is a start for a deployment.
`[[services]]`, `[[services.paths]]`, `[[providers]]` and `[[prices]]` may be repeated. SIGHUP reads `[[services]]` again; the
rest counts from the next start on.
"""


def pages() -> dict[str, str]:
    """The two pages."""
    return {
        "reference/settings.md": page("Environment variables", _SETTINGS_INTRO, *_variables()),
        "reference/server-file.md": page("The room server's file", _FILE_INTRO, *_file()),
    }


def _variables() -> Iterator[str]:
    fields = {_variable(field): field for field in Settings.model_fields.values()}
    _require_same(fields, {name for group in VARIABLES.values() for name in group}, "VARIABLES")
    for group, texts in VARIABLES.items():
        yield f"## {group}"
        yield table(
            ("Variable", "Type", "Default", "What it sets"),
            [(code(name), _type(fields[name]), _default(fields[name]), text) for name, text in texts.items()],
        )


def _file() -> Iterator[str]:
    members = dict(_members(ServerFile))
    _require_same(members, set(FILE), "FILE")
    tables: dict[str, list[tuple[str, str, str, str]]] = {}
    for name, field in members.items():
        where, _, member = name.rpartition(".")
        tables.setdefault(where, []).append((code(member), _type(field), _default(field), FILE[name]))
    lists = {"services", "services.paths", "providers", "prices", "studio.oidc.roles"}
    for where, rows in tables.items():
        yield f"## `[[{where}]]`" if where in lists else f"## `[{where}]`"
        yield table(("Member", "Type", "Default", "What it sets"), rows)


def _members(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = _table_model(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from _members(inner, f"{prefix}{name}.")


def _table_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a table or of a list of tables; None for a value. Models of other modules are values here."""
    if typing.get_origin(annotation) in (UnionType, typing.Union):  # a table that may be left out
        [annotation, *_] = [one for one in typing.get_args(annotation) if one is not type(None)]
    [annotation] = typing.get_args(annotation) if typing.get_origin(annotation) is list else [annotation]
    is_table = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_table and annotation.__module__ == ServerFile.__module__ else None


def _variable(field: FieldInfo) -> str:
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else str(alias)


def _type(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"))
        if hasattr(limit, name)
    ]
    return ", ".join([_type_name(field.annotation), *limits])


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (UnionType, typing.Union):
        return " or ".join(_type_name(one) for one in arguments if one is not type(None))
    if origin is typing.Literal:
        return ", ".join(map(code, arguments))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    names = {
        str: "text",
        int: "integer",
        float: "number",
        Decimal: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret text",
    }
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        value = field.get_default(call_default_factory=True, validated_data={})
        return code("{}" if value == {} else value)
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, bool):
        return code(str(field.default).lower())
    return "" if field.default is None else code(field.default)


def _require_same(in_code: typing.Collection[str], described: set[str], table_name: str) -> None:
    if different := set(in_code) ^ described:
        raise KeyError(f"docs/generate/settings.py {table_name} and the code differ in: {', '.join(sorted(different))}")
