"""Every variable that meshhost reads from the environment, in one place.

Each variable is `MESHHOST_<NAME>`, also read as `MESHAGENT_<NAME>` when ours is unset, so that a MeshAgent deployment keeps
its environment. `OPENAI_*` and `OTEL_*` keep their usual names. Values are read when `read_settings` is called, never at
import, so that tests and programs may set them first. Programs and `meshhost.app` read settings and pass plain values on:
the lower layers never see the environment (import-linter enforces it). What a short command reads is read by
`meshhost.client_settings` alone, since this model takes long to load. The reference page of the settings is made from the
descriptions here.

Longer than 400 lines because each variable has its description beside it, and all are in one place.
"""

import logging
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshhost.client_settings import DEFAULT_API_URL, checked_level, checked_url, clean
from meshhost.edge.limits import EdgeLimits
from meshhost.errors import SettingsError

__all__ = ["DEFAULT_API_URL", "Settings", "object_store_environment", "read_settings"]


# Those that the library of the object stores reads, and where it finds certificates and proxies.
_OBJECT_STORE = ("AWS_", "AZURE_", "GOOGLE_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def _names(name: str) -> AliasChoices:
    return AliasChoices(f"MESHHOST_{name}", f"MESHAGENT_{name}")


def _edge(name: str, default: float | None, description: str, *, most: float | None = None) -> Any:
    return Field(default, gt=0, le=most, validation_alias=_names(f"EDGE_{name}"), description=description)


def _oidc(name: str, description: str) -> Any:
    return Field(None, repr=False, validation_alias=_names(f"STUDIO_OIDC_{name}"), description=description)


class Settings(BaseSettings):
    """The environment at one moment. Field names are the variables' names in lower case without their prefix."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False)

    api_url: str = Field(
        DEFAULT_API_URL,
        validation_alias=_names("API_URL"),
        description="URL of the room server that clients, agents and the CLI use: http, https, ws or wss.",
    )
    api_key: SecretStr | None = Field(
        None,
        validation_alias=_names("API_KEY"),
        description=(
            "API key of the project, with which the CLI signs tokens and calls the REST API; `meshhost setup` writes one."
        ),
    )
    operator_key: SecretStr | None = Field(
        None,
        validation_alias=_names("OPERATOR_KEY"),
        description=(
            "Key of the room server's operator, with which tenants are managed. Unset: the one in `operator.key` of the "
            "configuration directory, which `meshhost room serve` writes."
        ),
    )
    secrets_key: SecretStr | None = Field(
        None,
        validation_alias=_names("SECRETS_KEY"),
        description=(
            "Keys with which a room server encrypts the secrets of tenants, as id:base64 with 32 bytes each, between commas; "
            "the first one encrypts, the others are older ones. Unset: those of the file."
        ),
    )
    secrets_key_file: Path | None = Field(
        None,
        validation_alias=_names("SECRETS_KEY_FILE"),
        description=(
            "File with these keys, one a line. Unset: `secrets.key` of the configuration directory, which a room server over "
            "SQLite writes when a tenant makes its first secret."
        ),
    )
    secret: SecretStr | None = Field(
        None,
        validation_alias=_names("SECRET"),
        description="Secret for tokens without an API key: the same on the room server and on what signs such tokens.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        validation_alias=_names("WEBHOOK_SECRET"),
        description=(
            "Secret that room servers sign calls with. A service host without one accepts calls from programs of this "
            "machine only, and none that a proxy forwards."
        ),
    )
    host: str | None = Field(
        None,
        validation_alias=_names("HOST"),
        description="Address that the service host listens on. Unset: 127.0.0.1.",
    )
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        validation_alias=_names("PORT"),
        description=(
            "Port that the service host listens on; 0 takes a free one. Unset: 8081 for `host.run()`, or a free one if "
            "that is taken."
        ),
    )
    token: SecretStr | None = Field(
        None,
        validation_alias=_names("TOKEN"),
        description=(
            "A participant token, with which `meshhost.connect` and commands join a room instead of signing one."
        ),
    )
    room: str | None = Field(
        None,
        validation_alias=_names("ROOM"),
        description="Name of the room that CLI commands use when none is given; traces are marked with it.",
    )
    project_id: str | None = Field(
        None,
        validation_alias=_names("PROJECT_ID"),
        description="Id of the project; traces are marked with it.",
    )
    session_id: str | None = Field(
        None,
        validation_alias=_names("SESSION_ID"),
        description="Id of the room session; traces are marked with it.",
    )
    # Not shown: it may hold a password.
    database_url: str | None = Field(
        None,
        repr=False,
        validation_alias=_names("DATABASE_URL"),
        description=(
            "Where all but files is stored: postgresql://user:password@host/database. Or the file of the queues alone: "
            "sqlite:///relative/path or sqlite:////absolute/path. Unset: files in the data directory."
        ),
    )
    data_dir: Path = Field(
        Path(".meshhost"),
        validation_alias=_names("DATA_DIR"),
        description="Directory for the data of a room server, and for a service host's ledger.",
    )
    config_dir: Path = Field(
        Path("~/.config/meshhost"),
        validation_alias=_names("CONFIG_DIR"),
        description="Directory of the user's project file, which `meshhost setup` writes.",
    )
    log_level: str = Field(
        "INFO",
        validation_alias=_names("LOG_LEVEL"),
        description="Least severe log records that are shown: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias=_names("LOG_FORMAT"),
        description=(
            "How log records are written: lines for people (text), or one JSON object a line (json). For `host.run()` in a "
            "program that has not configured logging itself, `otel_config` and the command line."
        ),
    )
    studio_link: Literal["terminal", "always", "never"] = Field(
        "terminal",
        validation_alias=_names("STUDIO_LINK"),
        description="When a server that starts prints a link that signs a browser in to Studio: on a terminal, always, never.",
    )
    # Checked together with the table [studio.oidc] of the file, whose members they replace, by `oidc_config` of meshhost.app.
    studio_oidc_issuer: str | None = _oidc(
        "ISSUER",
        "A provider of OpenID Connect by which people sign in to Studio: its issuer. This and the next ones go before the "
        "table `[studio.oidc]` of the room server's file, member by member; without the table, issuer, client id and roles "
        "are needed.",
    )
    studio_oidc_client_id: str | None = _oidc("CLIENT_ID", "What the provider knows the room server as.")
    studio_oidc_client_secret: SecretStr | None = _oidc(
        "CLIENT_SECRET", "The client's secret. Unset: the one of the file."
    )
    studio_oidc_client_secret_file: str | None = _oidc(
        "CLIENT_SECRET_FILE",
        "File with the client's secret, instead of the secret itself. Unset: the one of the room server's file.",
    )
    studio_oidc_name: str | None = _oidc("NAME", "The provider's name on the button. Unset: single sign-on.")
    studio_oidc_scopes: str | None = _oidc("SCOPES", "What is asked of the provider. Unset: openid email profile.")
    studio_oidc_groups_claim: str | None = _oidc("GROUPS_CLAIM", "The claim with a person's groups. Unset: groups.")
    studio_oidc_roles: str | None = _oidc(
        "ROLES",
        'The roles of the provider\'s groups, the first of which counts, as JSON: [{"group": "platform", "role": "operator"}, '
        '{"group": "dev", "role": "developer", "tenant": "acme"}].',
    )
    local_model: Path | None = Field(
        None,
        validation_alias=_names("LOCAL_MODEL"),
        description="Path of the weights (GGUF) for the small local model. Unset: the installed ones.",
    )
    allowed_room_urls: str | None = Field(
        None,
        validation_alias=_names("ALLOWED_ROOM_URLS"),
        description=(
            "URLs of further room servers, separated by commas, that may call a service host besides the one "
            "at the API URL."
        ),
    )
    room_server: str | None = Field(
        None,
        validation_alias=_names("ROOM_SERVER"),
        description=(
            "URL of a room server at which a service host dials in, to be called over that link: it then needs no address "
            "and no webhook secret. Unset: it is called by HTTP."
        ),
    )
    link_rooms: str | None = Field(
        None,
        validation_alias=_names("LINK_ROOMS"),
        description=(
            "Names or patterns of rooms, separated by commas, into which the agents of a service host that dials in are "
            "called. Unset: those that the room server's file names."
        ),
    )
    labels: str | None = Field(
        None,
        validation_alias=_names("LABELS"),
        description=(
            "Labels of a service host that dials in, as gpu=true,zone=a; services of the room server's file may require them."
        ),
    )
    max_agents: int = Field(
        10_000,
        ge=1,
        validation_alias=_names("MAX_AGENTS"),
        description="Number of agents that one service host runs at most; further calls are refused with 503.",
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        validation_alias=_names("DRAIN_SECONDS"),
        description="Seconds that a stopping service host waits for agents to finish their work before it aborts them.",
    )
    process_pool: int = Field(
        1,
        ge=0,
        validation_alias=_names("PROCESS_POOL"),
        description='Number of warm processes kept ready for agents with isolation="process".',
    )
    process_start: Literal["auto", "fork", "boot"] = Field(
        "auto",
        validation_alias=_names("PROCESS_START"),
        description=(
            'How agents with isolation="process" get a process: forked from a warm template (fork), started '
            "on its own (boot), or forked where that is safe (auto)."
        ),
    )
    isolation_uid: int | None = Field(
        None,
        gt=0,
        validation_alias=_names("ISOLATION_UID"),
        description=(
            'Id of the user that agents with isolation="process" run as, for a service host that runs as root. Unset: the '
            "host's own user, so that processes isolate crashes, not secrets."
        ),
    )
    process_memory_mb: int | None = Field(
        None,
        gt=0,
        validation_alias=_names("PROCESS_MEMORY_MB"),
        description="Memory in MB at which an agent's process is ended. Unset: no limit.",
    )
    process_stuck_seconds: float = Field(
        30.0,
        gt=0,
        validation_alias=_names("PROCESS_STUCK_SECONDS"),
        description="Seconds without an answer after which an agent's process is ended.",
    )
    max_processes: int = Field(
        100,
        ge=1,
        validation_alias=_names("MAX_PROCESSES"),
        description='Number of processes for agents with isolation="process" at most.',
    )
    block_seconds: float = Field(
        1.0,
        gt=0,
        validation_alias=_names("BLOCK_SECONDS"),
        description="Seconds that an agent may block the event loop before it is reported.",
    )
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        validation_alias=_names("HEALTH_PORT"),
        description=(
            "Port for /livez and /readyz that answers even while the event loop is blocked; 0 takes a free "
            "one. Unset: none."
        ),
    )
    live_seconds: float = Field(
        30.0,
        gt=0,
        validation_alias=_names("LIVE_SECONDS"),
        description="Seconds that the event loop may be blocked before /livez fails.",
    )
    start_seconds: float = Field(
        60.0,
        gt=0,
        validation_alias=_names("START_SECONDS"),
        description="Seconds that the first process may take to start before the log says what is missing.",
    )
    max_starts: int = Field(
        32,
        ge=1,
        validation_alias=_names("MAX_STARTS"),
        description="Number of agents that start at the same time at most; others wait in a fair queue.",
    )
    tenant_max_agents: int | None = Field(
        None,
        ge=0,
        validation_alias=_names("TENANT_MAX_AGENTS"),
        description="Number of agents that one tenant may run on a host. Unset: no limit.",
    )
    tenant_starts_per_second: float | None = Field(
        None,
        gt=0,
        validation_alias=_names("TENANT_STARTS_PER_SECOND"),
        description="Agent starts per second allowed to one tenant. Unset: no limit.",
    )
    tenant_max_waiting: int = Field(
        1_000,
        ge=1,
        validation_alias=_names("TENANT_MAX_WAITING"),
        description="Number of one tenant's agents that may wait for their start; further calls are refused with 429.",
    )
    tenant_memory_mb: float | None = Field(
        None,
        gt=0,
        validation_alias=_names("TENANT_MEMORY_MB"),
        description="Memory in MB that all processes of one tenant may use together. Unset: no limit.",
    )
    tenant_labels: int = Field(
        50,
        ge=0,
        validation_alias=_names("TENANT_LABELS"),
        description="Number of tenants that have their own label in /metrics; all others share one. 0 for none.",
    )
    tenant_label: Literal["id", "name"] = Field(
        "id",
        validation_alias=_names("TENANT_LABEL"),
        description="What the label of a tenant in /metrics shows: its id, which never changes, or its present name.",
    )
    ledger: str | None = Field(
        None,
        validation_alias=_names("LEDGER"),
        description=(
            "Where a service host records its agents, to start them again after a restart: `on` for a file "
            "in the data directory, or a path. The file holds tokens. Unset: not recorded."
        ),
    )
    admin_key: SecretStr | None = Field(
        None,
        validation_alias=_names("ADMIN_KEY"),
        description=(
            "Key for the operator's routes of a service host (/agents, /tenants, /drain). Unset: this machine only."
        ),
    )
    host_url: str | None = Field(
        None,
        validation_alias=_names("HOST_URL"),
        description=(
            "URL of the service host that `meshhost host` commands talk to. Unset: port MESHHOST_PORT of this machine, "
            "else the host that `meshhost service run` has started, else port 8081."
        ),
    )
    edge_header_seconds: float = _edge("HEADER_SECONDS", 10.0, "Seconds that the headers of a request have to arrive.")
    edge_body_idle_seconds: float = _edge("BODY_IDLE_SECONDS", 30.0, "Seconds that the body of a request may pause.")
    edge_bytes_per_second: float = _edge("BYTES_PER_SECOND", 1024.0, "Least bytes of a body or message per second.")
    edge_max_connections: int | None = _edge("MAX_CONNECTIONS", None, "Connections. Unset: by the file descriptors.")
    edge_max_incomplete: int = _edge("MAX_INCOMPLETE", 1024, "Connections whose headers are incomplete.")
    edge_max_incomplete_per_address: int = _edge("MAX_INCOMPLETE_PER_ADDRESS", 128, "As many of them from one address.")
    edge_max_body_bytes: int = _edge(
        "MAX_BODY_BYTES", 64 * 1024 * 1024, "Bytes of bodies that arrive, but messages and files."
    )
    edge_newcomer_share: float = _edge("NEWCOMER_SHARE", 0.3, "Share of the event loop for unknown senders.", most=1.0)
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        description="Key of the OpenAI-compatible provider that the gateway forwards to.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        description="URL of that provider, ending with the version of its API. Unset: OpenAI's, if there is a key.",
    )
    openai_model: str | None = Field(
        None,
        validation_alias="OPENAI_MODEL",
        description="Model that is used when an agent or a request names none.",
    )
    mail_domain: str | None = Field(
        None,
        validation_alias=_names("MAIL_DOMAIN"),
        description="Domain of the mail addresses of rooms, and the SMTP server of agents that name none.",
    )
    smtp_hostname: str | None = Field(
        None,
        validation_alias="SMTP_HOSTNAME",
        description="SMTP server that agents give their mail to. Unset: the mail domain.",
    )
    smtp_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        validation_alias="SMTP_PORT",
        description="Its port. Unset: 587; 465 is spoken to with TLS from the first byte.",
    )
    smtp_username: str | None = Field(
        None,
        validation_alias="SMTP_USERNAME",
        description="Name to log in with there. Unset: the name of the agent's participant.",
    )
    smtp_password: SecretStr | None = Field(
        None,
        validation_alias="SMTP_PASSWORD",
        description=(
            "Password to log in with there. Unset: the agent's participant token, which only the mail domain, the room "
            "server's host and this machine get."
        ),
    )
    smtp_local_hostname: str | None = Field(
        None,
        validation_alias="SMTP_LOCAL_HOSTNAME",
        description="Name by which agents introduce themselves there. Unset: that of the machine.",
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        validation_alias="ANTHROPIC_API_KEY",
        description="Key of Anthropic, which the gateway asks for `claude-*`.",
    )
    anthropic_model: str | None = Field(
        None, validation_alias="ANTHROPIC_MODEL", description="Model of an AnthropicMessagesAdapter that names none."
    )
    livekit_url: str | None = Field(
        None,
        validation_alias="LIVEKIT_URL",
        description=(
            "LiveKit server that voice may go through: ws, wss, http or https, as its clients reach it. With the next two, the "
            "room server signs tokens for it."
        ),
    )
    livekit_api_key: SecretStr | None = Field(
        None, validation_alias="LIVEKIT_API_KEY", description="API key of that LiveKit server."
    )
    livekit_api_secret: SecretStr | None = Field(
        None,
        validation_alias="LIVEKIT_API_SECRET",
        description="Secret of that key, which never leaves the room server.",
    )
    otel_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base URL of an OTLP/HTTP collector that traces are sent to. Unset: traces are not exported.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _without_line_end(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        text = clean(value)
        if not text and info.field_name is not None:
            return cls.model_fields[info.field_name].default
        return text

    @field_validator("log_level")
    @classmethod
    def _is_log_level(cls, value: str) -> str:
        return checked_level(value)

    @property
    def given(self) -> AbstractSet[str]:
        """The fields that the environment sets."""
        return self.model_fields_set

    @property
    def log_level_number(self) -> int:
        """The level as the logging module counts it."""
        return logging.getLevelNamesMapping()[self.log_level.upper()]

    @property
    def edge(self) -> EdgeLimits:
        """What a listening port admits."""
        return EdgeLimits(**{name: getattr(self, f"edge_{name}") for name in EdgeLimits.__slots__})

    @property
    def studio_oidc(self) -> Mapping[str, str | SecretStr]:
        """What is set of a provider of OpenID Connect, by the names of the table `[studio.oidc]` and `client_secret`."""
        found = {name: getattr(self, name) for name in type(self).model_fields if name.startswith("studio_oidc_")}
        return {name.removeprefix("studio_oidc_"): value for name, value in found.items() if value is not None}

    @field_validator("api_url")
    @classmethod
    def _is_http_url(cls, value: str) -> str:
        return checked_url(value)

    @field_validator("livekit_url")
    @classmethod
    def _is_socket_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, separator, rest = value.rstrip("/").partition("://")
        wanted = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}.get(scheme.lower())
        if wanted is None or not separator or not rest or " " in rest:
            raise ValueError("expected the address of a LiveKit server: ws://, wss://, http:// or https://")
        return f"{wanted}://{rest}"

    @field_validator("config_dir", "data_dir", "local_model")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()


def object_store_environment() -> dict[str, str]:
    """Return the variables by which an object store is reached: for processes that open it and need nothing else of ours."""
    return {name: value for name, value in os.environ.items() if name.startswith(_OBJECT_STORE)}


def read_settings() -> Settings:
    """Return the environment as it is now.

    Raises SettingsError that names the wrong variable and never shows its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        text = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {text}") from None
