"""The schema of `meshhost.toml`, the configuration file of a room server, and how it is read.

Unknown names are errors, so that a misspelt setting is not ignored; an error names the member that is wrong. Secrets are never
in the file: it names the files that hold them. The provider by which people sign in to Studio may also be named by variables
(`oidc_config`), since a deployment knows its issuer and its secret, and an image the roles. `meshhost room serve` reads
the file at its start, and its services again at each SIGHUP; `embedded` turns it into arguments.

Longer than 400 lines because the whole file is described in one place, a class for each table.
"""

import json
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from meshhost.app.built_in.process import BuiltInLimits
from meshhost.edge.limits import EdgeLimits
from meshhost.errors import SettingsError
from meshhost.gateway.patterns import check_pattern
from meshhost.gateway.prices import DECIMALS, MOST_PRICE, Price
from meshhost.identity.grants import ApiScope
from meshhost.identity.roles import Role
from meshhost.mail.delivery import SmtpServer
from meshhost.mail.signing import DkimKey
from meshhost.queues.bodies import INLINE_BYTES
from meshhost.quotas.quota import ServerQuota
from meshhost.server.config import (
    MAX_HEADER_BYTES,
    ConfiguredService,
    LinkConfig,
    MailConfig,
    OidcConfig,
    OidcRole,
    SecretUse,
    ServicePath,
)
from meshhost.stores.traces.contract import TraceLimits
from meshhost.tables.limits import MAX_RESULT_BYTES, TableLimits
from meshhost.validation import first_problem

__all__ = [
    "OidcTable",
    "PriceEntry",
    "ProviderEntry",
    "ServerFile",
    "changed_tables",
    "oidc_config",
    "read_secret_file",
    "read_server_file",
]


class _Table(BaseModel):
    # A misspelt setting must be an error.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _http_url(value: str) -> str:
    url = value.strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise ValueError("expected an http or https URL such as https://rooms.example.com")
    return url


_VARIABLE = "MESHHOST_STUDIO_OIDC_"

_HttpUrl = Annotated[str, AfterValidator(_http_url)]


class _Server(_Table):
    public_url: _HttpUrl | None = None
    linger_seconds: float = Field(60.0, ge=0)
    resume_seconds: float = Field(10.0, ge=0, le=300)
    max_message_bytes: int = Field(64 * 1024 * 1024, ge=64 * 1024)
    max_header_bytes: int = Field(MAX_HEADER_BYTES, ge=64 * 1024)
    max_in_flight_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024)
    message_seconds: float = Field(30.0, gt=0)
    max_upload_bytes: int = Field(1024 * 1024 * 1024, ge=1)
    call_urls: list[str] = Field(default_factory=list)
    oauth: bool = True
    require_token_expiry: bool = False
    tenant_labels: int = Field(0, ge=0)
    tenant_label: Literal["id", "name"] = "id"


class _Edge(_Table):
    header_seconds: float = Field(10.0, gt=0)
    body_idle_seconds: float = Field(30.0, gt=0)
    bytes_per_second: float = Field(1024.0, gt=0)
    max_connections: int | None = Field(None, gt=0)
    max_incomplete: int = Field(1024, gt=0)
    max_incomplete_per_address: int = Field(128, gt=0)
    newcomer_share: float = Field(0.3, gt=0, le=1)
    max_body_bytes: int = Field(64 * 1024 * 1024, gt=0)

    def limits(self, others: EdgeLimits) -> EdgeLimits:
        """Return these limits, and `others` (those of the environment) for what the file does not set."""
        return replace(others, **self.model_dump(exclude_unset=True))


class _Queues(_Table):
    max_attempts: int = Field(5, ge=1)
    max_interruptions: int = Field(5, ge=1)
    max_depth: int = Field(1_000_000, ge=1)
    max_message_bytes: int = Field(8 * 1024 * 1024, ge=1, le=512 * 1024 * 1024)
    inline_bytes: int = Field(INLINE_BYTES, ge=1024, le=1024 * 1024)


class _Quota(_Table):
    max_rooms: int = Field(1_000, ge=0)
    max_connections: int = Field(20_000, ge=0)
    max_agents: int = Field(10_000, ge=0)
    max_queues: int = Field(10_000, ge=0)
    max_messages: int = Field(2_000_000, ge=0)
    max_stored_bytes: int | None = Field(None, ge=0)
    max_files: int | None = Field(None, ge=0)
    max_documents: int = Field(100_000, ge=0)
    max_tables: int = Field(1_000, ge=0)
    max_keys: int = Field(1_000, ge=0)
    max_uploads: int = Field(1_000, ge=0)
    max_in_flight_bytes: int | None = Field(128 * 1024 * 1024, ge=1024 * 1024)
    requests_per_second: float | None = Field(None, gt=0)
    weight: float = Field(1.0, ge=0.01, le=1000)
    connections_per_second: float | None = Field(None, gt=0)

    def server_quota(self) -> ServerQuota:
        """Return the quota of a tenant for which the operator set nothing else."""
        return ServerQuota(**self.model_dump())


class _Traces(_Table):
    keep: bool = True
    per_second: float = Field(10.0, ge=0, le=10_000)
    failed_per_second: float = Field(10.0, ge=0, le=10_000)
    max_mb: int = Field(256, ge=8, le=65_536)
    tenant_mb: int = Field(32, ge=1, le=65_536)
    days: float = Field(3.0, gt=0, le=365)

    def limits(self) -> TraceLimits:
        """Return the limits of the store of traces."""
        mb = 1024 * 1024
        return TraceLimits(total_bytes=self.max_mb * mb, tenant_bytes=self.tenant_mb * mb, days=self.days)


class _Tables(_Table):
    processes: int = Field(4, ge=1, le=1000)
    memory_mb: int = Field(1024, ge=384, le=1024 * 1024)
    threads: int | None = Field(None, ge=1, le=1024)
    query_seconds: float = Field(30.0, gt=0, le=3600)
    index_seconds: float = Field(600.0, gt=0, le=24 * 3600)
    concurrent: int = Field(4, ge=1, le=1000)
    waiting: int = Field(100, ge=1, le=100_000)

    def limits(self, result_bytes: int) -> TableLimits:
        """Return the limits of tables; a search returns at most `result_bytes`."""
        return TableLimits(**self.model_dump(), result_bytes=min(MAX_RESULT_BYTES, result_bytes))


class _Storage(_Table):
    url: str | None = None


class _Webhooks(_Table):
    urls: list[str] = Field(default_factory=list)
    secret_file: Path | None = None


class _Path(_Table):
    path: str = Field(pattern="^/")
    identity: str
    api: ApiScope | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class _Links(_Table):
    enabled: bool = False
    resume_seconds: float = Field(15.0, ge=0, le=300)
    max_per_tenant: int = Field(100, ge=0, le=10_000)

    def config(self) -> LinkConfig:
        """Return the limits of links, enabled or not."""
        return LinkConfig(resume_seconds=self.resume_seconds, max_per_tenant=self.max_per_tenant)


class _Service(_Table):
    urls: list[_HttpUrl] = Field(default_factory=list)
    link: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")
    url: Annotated[_HttpUrl | None, Field(validate_default=True)] = None
    requires: dict[str, str] = Field(default_factory=dict)
    rooms: str = "*"
    secret_file: Path | None = None
    secrets: list[str] = Field(default_factory=list)
    paths: list[_Path]

    @field_validator("url")
    @classmethod
    def _is_one_or_several(cls, value: str | None, info: ValidationInfo) -> str | None:
        given = [value is not None, bool(info.data.get("urls")), info.data.get("link") is not None]
        if sum(given) != 1:
            raise ValueError("expected either url, urls or link")
        return value

    @field_validator("requires")
    @classmethod
    def _is_for_links(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if value and info.data.get("link") is None:
            raise ValueError("expected only with link: labels are those of hosts that dial in")
        return value

    def all_urls(self) -> list[str]:
        """Return the URLs of its hosts in the order in which they are tried; at least one."""
        if self.link is not None:
            return [f"link://{self.link}"]
        return [self.url] if self.url is not None else self.urls


def _model_pattern(value: str) -> str:
    try:
        return check_pattern(value)
    except SettingsError as error:
        raise ValueError(str(error)) from None


_Price = Annotated[Decimal, Field(ge=0, le=MOST_PRICE, decimal_places=DECIMALS)]


class ProviderEntry(_Table):
    """An LLM provider: which models it serves (a pattern), and how it is reached. Its key is in a file of its own.

    `api` is what an OpenAI-compatible service speaks; None: found out. `audio` lets callers use the provider's audio API too.
    `api_key_secret` names the secret in which a tenant may bring its own key.
    """

    models: str = "*"
    kind: Literal["openai", "anthropic", "local"] = "openai"
    base_url: _HttpUrl | None = None
    api: Annotated[Literal["responses", "chat"] | None, Field(validate_default=True)] = None
    api_key_file: Path | None = None
    api_key_secret: str | None = None
    default_model: str | None = None
    audio: bool = False

    @field_validator("api")
    @classmethod
    def _is_of_an_openai_service(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("kind") != "openai":
            raise ValueError('expected only with kind = "openai"')
        return value


class PriceEntry(_Table):
    """What tokens of some models cost: prices per million tokens. `models` is a pattern as that of a provider."""

    models: Annotated[str, AfterValidator(_model_pattern)]
    currency: str = Field("USD", pattern="^[A-Z]{3}$")
    input: _Price
    cached_input: _Price | None = None
    cache_write: _Price | None = None
    output: _Price

    def price(self) -> Price:
        """Return the price as the gateway's meter takes it."""
        return Price.of(
            self.currency, self.input, self.output, cached_input=self.cached_input, cache_write=self.cache_write
        )


class _OidcRole(_Table):
    group: str = Field(min_length=1)
    role: Literal["viewer", "developer", "admin", "operator"]
    tenant: Annotated[str | None, Field(validate_default=True)] = None

    @field_validator("tenant")
    @classmethod
    def _is_for_roles_of_tenants(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "role" in info.data and (value is None) != (info.data["role"] == "operator"):
            raise ValueError("expected the name or id of a tenant, and none for the role operator")
        return value


class OidcTable(_Table):
    """The table `[studio.oidc]`."""

    issuer: _HttpUrl
    client_id: str = Field(min_length=1)
    client_secret_file: Path | None = None
    name: str = Field("single sign-on", min_length=1, max_length=60)
    scopes: str = "openid email profile"
    groups_claim: str = "groups"
    roles: list[_OidcRole] = Field(min_length=1)


class _Studio(_Table):
    oidc: OidcTable | None = None


class _Relay(_Table):
    host: str = Field(min_length=1, max_length=255)
    port: int = Field(587, ge=1, le=65535)
    username: str | None = None
    password_file: Path | None = None
    tls: Literal["always", "required", "auto", "never"] = "required"
    verify: bool = True


class _Dkim(_Table):
    domain: str = Field(min_length=1, max_length=255)
    selector: str = Field(min_length=1, max_length=63)
    key_file: Path


def _host_and_port(value: str) -> str:
    host, colon, port = value.strip().rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("expected an address and a port such as 0.0.0.0:25 or [::]:25")
    return value.strip()


_HostAndPort = Annotated[str, AfterValidator(_host_and_port)]


class _Mail(_Table):
    listen: _HostAndPort | None = None
    submission: _HostAndPort | None = None
    protocol: Literal["smtp", "lmtp"] = "smtp"
    hostname: str | None = Field(None, pattern=r"^[A-Za-z0-9.-]{1,255}$")
    domains: list[str] = Field(default_factory=list)
    certificate_file: Path | None = None
    key_file: Path | None = None
    require_tls: bool = False
    relay: _Relay | None = None
    dkim: _Dkim | None = None
    max_bytes: int | None = Field(None, ge=1024)
    max_connections: int = Field(100, ge=1)
    max_connections_per_address: int = Field(10, ge=1)
    max_recipients: int = Field(50, ge=1, le=1000)
    max_unknown: int = Field(20, ge=1)
    mails_per_minute: float = Field(120.0, gt=0)
    idle_seconds: float = Field(60.0, gt=0)
    bytes_per_second: float = Field(1024.0, gt=0)

    def config(self, most_bytes: int) -> MailConfig:
        """Return how mail comes in and goes out; a message of a queue has room for a mail of `most_bytes`.

        Raises SettingsError for a file that cannot be read, or a mail larger than that.
        """
        if self.max_bytes is not None and self.max_bytes > most_bytes:
            raise SettingsError(f"mail.max_bytes: expected at most {most_bytes}; queues.max_message_bytes bounds it")
        numbers = ("max_connections", "max_connections_per_address", "max_recipients", "max_unknown")
        others = ("mails_per_minute", "idle_seconds", "bytes_per_second", "protocol", "hostname", "require_tls")
        return MailConfig(
            listen=_address_of(self.listen),
            submission=_address_of(self.submission),
            domains=tuple(self.domains),
            tls=self._tls(),
            relay=self._relay(),
            dkim=self._dkim(),
            max_bytes=self.max_bytes or most_bytes,
            max_buffered_bytes=max(64 * 1024 * 1024, 2 * (self.max_bytes or most_bytes)),
            **{name: getattr(self, name) for name in (*numbers, *others)},
        )

    def _tls(self) -> ssl.SSLContext | None:
        if self.certificate_file is None:
            if self.require_tls:
                raise SettingsError("mail.require_tls: it needs certificate_file")
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"mail.certificate_file: cannot read it or its key: {error.strerror or error}"
            ) from None
        return context

    def _relay(self) -> SmtpServer | None:
        if self.relay is None:
            return None
        relay = self.relay
        return SmtpServer(
            relay.host,
            relay.port,
            relay.username,
            read_secret_file(relay.password_file),
            self.hostname,
            relay.tls,
            relay.verify,
        )

    def _dkim(self) -> DkimKey | None:
        return None if self.dkim is None else DkimKey.of_file(self.dkim.domain, self.dkim.selector, self.dkim.key_file)


def _address_of(value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class _BuiltIn(_Table):
    enabled: bool = True
    idle_seconds: float = Field(300.0, ge=1, le=86_400)
    max_agents: int = Field(1000, ge=1)
    max_agents_per_tenant: int = Field(50, ge=1)

    def limits(self) -> BuiltInLimits:
        """The limits of their host."""
        return BuiltInLimits(
            idle_seconds=self.idle_seconds,
            max_agents=self.max_agents,
            max_agents_per_tenant=self.max_agents_per_tenant,
        )


_PerModels = TypeVar("_PerModels", ProviderEntry, PriceEntry)


class ServerFile(_Table):
    """The whole file. Every table is optional."""

    server: _Server = Field(default_factory=_Server)
    edge: _Edge = Field(default_factory=_Edge)
    queues: _Queues = Field(default_factory=_Queues)
    quota: _Quota = Field(default_factory=_Quota)
    storage: _Storage = Field(default_factory=_Storage)
    webhooks: _Webhooks = Field(default_factory=_Webhooks)
    studio: _Studio = Field(default_factory=_Studio)
    mail: _Mail = Field(default_factory=_Mail)
    traces: _Traces = Field(default_factory=_Traces)
    tables: _Tables = Field(default_factory=_Tables)
    built_in: _BuiltIn = Field(default_factory=_BuiltIn)
    links: _Links = Field(default_factory=_Links)
    services: list[_Service] = Field(default_factory=list)
    providers: list[ProviderEntry] = Field(default_factory=list)
    prices: list[PriceEntry] = Field(default_factory=list)

    @field_validator("providers", "prices")
    @classmethod
    def _have_different_models(cls, value: list[_PerModels], info: ValidationInfo) -> list[_PerModels]:
        first: dict[str, int] = {}
        for number, entry in enumerate(value):
            if entry.models in first:
                both = f"{info.field_name}.{first[entry.models]} and {info.field_name}.{number}"
                raise ValueError(f"{both} are both for models = {entry.models!r}: give each its own pattern")
            first[entry.models] = number
        return value

    def configured_services(self) -> Sequence[ConfiguredService]:
        """Return the services with their secrets, which are read from files. Raises SettingsError."""
        return [
            ConfiguredService(
                url=service.all_urls()[0],
                other_urls=service.all_urls()[1:],
                rooms=service.rooms,
                requires=service.requires,
                webhook_secret=read_secret_file(service.secret_file),
                secrets=[SecretUse(name) for name in service.secrets],
                paths=[ServicePath(path.path, path.identity, path.api, path.arguments) for path in service.paths],
            )
            for service in self.services
        ]


def read_server_file(path: Path | None) -> ServerFile:
    """Read the file; None gives the defaults. Raises SettingsError, which names the member that is wrong."""
    if path is None:
        return ServerFile()
    try:
        return ServerFile.model_validate(tomllib.loads(path.read_bytes().decode("utf-8-sig")))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        where, message = first_problem(error)
        raise SettingsError(f"{path}: {where}: {message.removeprefix('Value error, ')}") from None


def oidc_config(table: OidcTable | None, environment: Mapping[str, str | SecretStr]) -> OidcConfig | None:
    """Return the provider with its secret, or None where neither the file nor the environment names one.

    Raises SettingsError for all that is wrong, each under its name and without its value, which may be the secret.
    `environment` has the members that variables set, which go before those of the file; `roles` is a JSON text, and
    `client_secret` stands for a file.
    """
    if table is None and not environment:
        return None
    given: dict[str, Any] = {name: value for name, value in environment.items() if name != "client_secret"}
    secret = environment.get("client_secret")
    if secret is not None and "client_secret_file" in given:
        raise SettingsError(f"{_VARIABLE}CLIENT_SECRET: expected either it or {_VARIABLE}CLIENT_SECRET_FILE, not both")
    if "roles" in given:
        given["roles"] = _roles(given["roles"])
    of_file = {} if table is None else table.model_dump(exclude_unset=True)
    try:
        whole = OidcTable.model_validate(of_file | given)
    except ValidationError as error:
        raise SettingsError(_all_problems(error, in_file=table is not None, given=given)) from None
    shown = secret.get_secret_value() if isinstance(secret, SecretStr) else read_secret_file(whole.client_secret_file)
    return OidcConfig(
        issuer=whole.issuer,
        client_id=whole.client_id,
        name=whole.name,
        roles=[
            OidcRole(each.group, None if each.tenant is None else Role(each.role), each.tenant) for each in whole.roles
        ],
        client_secret=shown,
        scopes=whole.scopes,
        groups_claim=whole.groups_claim,
    )


def _roles(text: str) -> Any:
    try:
        roles = json.loads(text)
    except ValueError:
        roles = None
    if not isinstance(roles, list):
        example = '[{"group": "platform", "role": "operator"}]'
        raise SettingsError(f"{_VARIABLE}ROLES: expected a JSON list such as {example}")
    return roles


def _all_problems(error: ValidationError, *, in_file: bool, given: Mapping[str, Any]) -> str:
    """One sentence for each member that is wrong, without its value."""
    problems = []
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        member, *inner = each["loc"]
        name = f"studio.oidc.{member}" if in_file and member not in given else f"{_VARIABLE}{str(member).upper()}"
        where = ": ".join([name, *([".".join(map(str, inner))] if inner else [])])
        problems.append(f"{where}: {each['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)


def changed_tables(running: ServerFile, read: ServerFile) -> list[str]:
    """Return the tables, apart from `services`, that differ from the running ones: they are read at the start only."""
    tables = [name for name in ServerFile.model_fields if name != "services"]
    return [name for name in tables if getattr(running, name) != getattr(read, name)]


def read_secret_file(path: Path | None) -> str | None:
    """Return the text of a secret file without surrounding white space; None for None. Raises SettingsError."""
    if path is None:
        return None
    try:
        secret = path.read_bytes().decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"cannot read the secret file {path}") from None
    if not secret:
        raise SettingsError(f"the secret file {path} is empty")
    if any(character < " " or character == "\x7f" for character in secret):
        raise SettingsError(f"the secret file {path} has several lines, or a control character: expected one secret")
    return secret
