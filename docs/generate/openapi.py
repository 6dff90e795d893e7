"""Builds OpenAPI 3.1 documents from a table of endpoints.

An `Endpoint` describes one route of an aiohttp application in the words of OpenAPI: what it does, its parameters, its body
and its answers. `document` turns a table of them into one document. Pure: nothing here looks at the servers;
`docs.generate.rest` compares the tables with what is served.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshhost import __version__

__all__ = ["ANY_METHOD", "Answer", "Endpoint", "Parameter", "array", "document", "obj"]

Schema = Mapping[str, Any]

ANY_METHOD = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods written down for a route that takes all (`*`)."""

TEXT: Schema = {"type": "string"}
ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path or the query; those of the query may be left out unless `required`."""

    name: str
    text: str
    schema: Schema = field(default_factory=lambda: dict(TEXT))
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, when it comes, and its body as a JSON schema (None: no body, or one of `media`)."""

    status: int
    text: str
    schema: Schema | None = None
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. `path` is aiohttp's; `shown` is the path in the document when it has to be another one.

    `auth` is the name of a security scheme of the document, "" for none.
    """

    method: str
    path: str
    summary: str
    answers: Sequence[Answer]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: Schema | None = None
    body_media: str = "application/json"
    is_body_required: bool = True
    auth: str = ""
    tag: str = ""
    shown: str = ""

    @property
    def shown_path(self) -> str:
        """The path in the document."""
        return self.shown or self.path

    @property
    def methods(self) -> Sequence[str]:
        """The methods in the document."""
        return ANY_METHOD if self.method == "*" else (self.method,)


def obj(required: Sequence[str] = (), /, **properties: Schema) -> Schema:
    """The schema of an object."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    return {**schema, "required": list(required)} if required else schema


def array(of: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": of}


def document(
    title: str, description: str, endpoints: Iterable[Endpoint], *, server: str, security: Mapping[str, Schema]
) -> dict[str, Any]:
    """The OpenAPI document of these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        for method in endpoint.methods:
            paths.setdefault(endpoint.shown_path, {})[method.lower()] = _operation(endpoint, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": __version__, "license": _LICENSE},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {"securitySchemes": dict(security)},
    }


_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _operation(endpoint: Endpoint, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(method, endpoint.shown_path),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "security": [{endpoint.auth: []}] if endpoint.auth else [],
    }
    if endpoint.description:
        operation["description"] = " ".join(endpoint.description.split())
    if parameters := [_parameter(one) for one in (*_in_path(endpoint), *endpoint.parameters)]:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {endpoint.body_media: {"schema": dict(endpoint.body)}}
        operation["requestBody"] = {"required": endpoint.is_body_required, "content": content}
    operation["responses"] = {str(answer.status): _answer(answer) for answer in endpoint.answers}
    return operation


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", path) or ["root"]
    return "_".join([method.lower(), *words])


def _in_path(endpoint: Endpoint) -> list[Parameter]:
    described = {one.name for one in endpoint.parameters if one.place == "path"}
    names = re.findall(r"{(\w+)}", endpoint.shown_path)
    return [Parameter(name, _IN_PATH[name], place="path") for name in names if name not in described]


_IN_PATH = {
    "address": "The address of the mailbox.",
    "id": "The id.",
    "name": "The room's name.",
    "path": "The rest of the path.",
    "project": "The id of the project that the key belongs to; that of another project is answered with 404.",
    "queue": "The name of the queue.",
    "rest": "The rest of the path.",
    "room": "The room's name.",
    "tenant": "The tenant's id.",
    "token": "The signed token of the file.",
    "what": "A part of MeshAgent's REST API.",
    "room_name": "Name of the room.",
    "host": "The host's `id` of `GET /hosts`.",
    "trace": "The id of the trace: 32 hexadecimal digits.",
    "version": "The version in the addresses of the page, or `-`.",
}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required or parameter.place == "path",
        "description": parameter.text,
        "schema": dict(parameter.schema),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.text}
    if answer.headers:
        found["headers"] = {name: {"description": text, "schema": TEXT} for name, text in answer.headers.items()}
    if answer.schema is not None:
        found["content"] = {answer.media: {"schema": dict(answer.schema)}}
    return found
