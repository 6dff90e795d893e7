"""Reads the spec of a service, as MeshAgent's `service create` sends it, and turns it into what the room server calls.

A spec names a service's hosts and paths: `external.url`, and for each path the identity and rights of the agent that is called
there. Specs of both generations of MeshAgent are taken. What only a container could do is refused at once by its name, since an
agent that silently has no storage mount would fail much later. Four annotations of `metadata` say what MeshAgent's spec cannot:

- `meshhost.rooms`: a pattern of names; only matching rooms get the agents.
- `meshhost.arguments`: JSON text of an object, the arguments of each call.
- `meshhost.secret`: the secret (by name or id) that signs the calls, as MESHHOST_WEBHOOK_SECRET does on the host.
- `meshhost.secrets`: names of secrets between commas, whose members are in the `environment` of the arguments.

Pure: no I/O.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

from meshhost.errors import InvalidRequestError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import TenantId
from meshhost.server.calling.call_urls import parsed_call_url
from meshhost.server.config import ConfiguredService, SecretUse, ServicePath
from meshhost.server.configured.items import check_name
from meshhost.stores.configuration.contract import ConfigurationItem
from meshhost.validation import invalid_request

__all__ = ["ServiceSpec", "parse_spec", "without_nothing"]

_NO_CONTAINERS = (
    "meshhost runs no containers: start the program yourself, such as with its `command` or `meshhost service run`, "
    "and give its address as external.url"
)
_NO_MCP = "meshhost calls no MCP servers for a service: use an agent with MCP toolkits, see `meshhost mcp --help`"
_MOST_PATHS = 64
_MOST_VARIABLES = 64


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Metadata(_Part):
    name: str
    description: str | None = None
    repo: str | None = None
    icon: str | None = None
    annotations: dict[str, str] | None = None


class _SecretValue(_Part):
    id: str


class _Variable(_Part):
    name: str = Field(min_length=1, max_length=128)
    value: str | None = None
    secret: _SecretValue | None = None


class _Container(_Part):
    """Without an image: what is left of a container when the program runs elsewhere."""

    image: Literal["", None] = ""
    environment: list[_Variable] | None = Field(None, max_length=_MOST_VARIABLES)
    secrets: list[str] = Field(default_factory=list, max_length=_MOST_VARIABLES)


class _External(_Part):
    url: str


class _Agent(_Part):
    identity: str = Field(min_length=1, max_length=128)
    api: ApiScope | None = None


class _Endpoint(_Part):
    path: str = Field(pattern="^/")
    meshagent: _Agent | None = None
    annotations: dict[str, str] | None = None


class _Port(_Part):
    num: Literal["*"] | Annotated[int, Field(ge=1, le=65535, strict=True)] = "*"
    type: Literal["http"] | None = "http"
    endpoints: list[_Endpoint] = Field(default_factory=list, max_length=_MOST_PATHS)
    liveness: str | None = None


class ServiceSpec(_Part):
    """A service: where its hosts are, and which of their paths is which agent."""

    version: Literal["v1"]
    kind: Literal["Service"]
    enabled: bool = True
    metadata: _Metadata
    agents: list[dict[str, Any]] | None = None
    ports: list[_Port] | None = Field(None, max_length=16)
    container: _Container | None = None
    external: _External

    def configured(self, item: ConfigurationItem) -> Sequence[ConfiguredService]:
        """Return the services to call, one for each port; none for a service that is not enabled."""
        if not self.enabled:
            return []
        notes = self.metadata.annotations or {}
        container = self.container or _Container()
        variables = {one.name: one.value for one in container.environment or [] if one.value is not None}
        uses = [SecretUse(name) for name in [*container.secrets, *_names(notes.get("meshhost.secrets", ""))]]
        uses += [SecretUse(one.secret.id, one.name) for one in container.environment or [] if one.secret is not None]
        signed_with = notes.get("meshhost.secret")
        arguments = _arguments(notes)
        return [
            ConfiguredService(
                url=_address(self.external.url, port.num),
                paths=[
                    ServicePath(each.path, each.meshagent.identity, each.meshagent.api, arguments)
                    for each in port.endpoints
                    if each.meshagent is not None
                ],
                rooms=item.room or notes.get("meshhost.rooms", "*"),
                tenant=TenantId(item.tenant),
                id=item.id,
                variables=variables,
                secrets=uses,
                signed_with=SecretUse(signed_with, "secret") if signed_with else None,
            )
            for port in self.ports or []
        ]

    def urls(self) -> Sequence[str]:
        """Return the addresses that are called, for the check whether they may be."""
        return [_address(self.external.url, port.num) for port in self.ports or []]


def parse_spec(document: Mapping[str, Any]) -> ServiceSpec:
    """Return the spec. Raises InvalidRequestError, which names the member that is wrong or that meshhost does not have."""
    _refuse_what_is_out(document)
    try:
        spec = ServiceSpec.model_validate(without_nothing(document))
    except ValidationError as error:
        raise invalid_request(error) from None
    check_name(spec.metadata.name, "metadata.name")
    if parsed_call_url(spec.external.url) is None:
        raise InvalidRequestError("external.url", "expected an http or https URL without user and dots")
    paths = [each for port in spec.ports or [] for each in port.endpoints if each.meshagent is not None]
    if not 1 <= len(paths) <= _MOST_PATHS:
        raise InvalidRequestError("ports", f"expected 1 to {_MOST_PATHS} endpoints with meshagent.identity")
    for variable in (spec.container.environment if spec.container else None) or []:
        if (variable.value is None) == (variable.secret is None):
            raise InvalidRequestError(f"container.environment.{variable.name}", "expected either value or secret")
    _arguments(spec.metadata.annotations or {})
    return spec


def _refuse_what_is_out(document: Mapping[str, Any]) -> None:
    if document.get("kind") == "ServiceTemplate":
        raise InvalidRequestError("kind", "a template is filled in by who sends it: expected Service")
    container = document.get("container")
    for member, value in container.items() if isinstance(container, dict) else ():
        is_out = member not in _Container.model_fields or (member == "image" and value != "")
        if is_out and value not in (None, [], {}):
            raise InvalidRequestError(f"container.{member}", _NO_CONTAINERS)
    if document.get("files"):
        raise InvalidRequestError("files", _NO_CONTAINERS)
    external = document.get("external")
    if not isinstance(external, dict) or not external.get("url"):
        raise InvalidRequestError("external.url", "expected the address of the service's host")
    for place, port in _numbered("ports", document.get("ports")):
        _refuse_of_port(place, port)


def _refuse_of_port(place: str, port: dict[str, Any]) -> None:
    for member in ("host_port", "published"):
        if port.get(member):
            raise InvalidRequestError(f"{place}.{member}", _NO_CONTAINERS)
    for inner, endpoint in _numbered(f"{place}.endpoints", port.get("endpoints")):
        if endpoint.get("mcp") is not None:
            raise InvalidRequestError(f"{inner}.mcp", _NO_MCP)


def without_nothing(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document without members that say nothing, which clients of the other generation do not know."""
    found = {name: _without_nothing(value) for name, value in document.items() if name not in ("id", "files")}
    return {name: value for name, value in found.items() if value is not None and (name, value) != ("enabled", True)}


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nothing(inner) for name, inner in value.items() if inner is not None}
    return [_without_nothing(each) for each in value] if isinstance(value, list) else value


def _numbered(place: str, entries: object) -> list[tuple[str, dict[str, Any]]]:
    found = entries if isinstance(entries, list) else []
    return [(f"{place}.{number}", each) for number, each in enumerate(found) if isinstance(each, dict)]


def _arguments(notes: Mapping[str, str]) -> dict[str, Any]:
    text = notes.get("meshhost.arguments", "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError("metadata.annotations.meshhost.arguments", "expected the text of a JSON object")
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _address(url: str, port: Literal["*"] | int) -> str:
    """The address of a port: a port in the URL goes before the one of the spec."""
    parsed = URL(url)
    if port == "*" or parsed.explicit_port is not None:
        return url
    return str(parsed.with_port(port))
