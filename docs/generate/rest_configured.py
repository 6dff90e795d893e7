"""The endpoints of a room server with which tenants configure secrets, services and webhooks."""

from typing import Any

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Schema, array, obj

__all__ = ["CONFIGURED"]

_PROJECT = "/accounts/projects/{project}"
_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key is missing, wrong, revoked or expired.", ERROR)
_FORBIDDEN = Answer(403, "The key's role does not allow it.", ERROR)
_TAKEN = Answer(409, "Another one has the name, or it was changed at the same moment.", ERROR)
_TOO_MANY = Answer(429, "The tenant has as many as it may.", ERROR)
_LOCKED = Answer(503, "The server has no key to encrypt secrets with, or another one.", ERROR)
_NUMBER: Schema = {"type": "number"}
_OBJECT: Schema = {"type": "object"}
_NULLABLE: Schema = {"type": ["string", "null"]}
_SECRET_BODY = obj(
    ("name", "data"),
    name=TEXT,
    type={"const": "keys"},
    data={"type": "object", "additionalProperties": {"type": "string"}},
)
_SECRET = obj(id=TEXT, name=TEXT, type=TEXT, data=_OBJECT, created_at=_NUMBER, changed_at=_NUMBER)
_SPEC = obj(
    ("version", "kind", "metadata", "ports", "external"),
    version={"const": "v1"},
    kind={"const": "Service"},
    id=TEXT,
    enabled={"type": "boolean"},
    metadata=obj(("name",), name=TEXT, annotations=_OBJECT),
    agents=array(_OBJECT),
    ports=array(_OBJECT),
    external=obj(("url",), url=TEXT),
    container=_OBJECT,
)
_WEBHOOK_BODY = obj(
    ("name", "url", "events"),
    name=TEXT,
    url=TEXT,
    events=array({"enum": ["room.started", "room.ended"]}),
    description=_NULLABLE,
    action=_NULLABLE,
    payload={"type": ["object", "null"]},
    secret=_NULLABLE,
)
_DELIVERY = obj(
    at=_NUMBER,
    event=TEXT,
    room=TEXT,
    outcome={"enum": ["delivered", "retrying", "failed", "not_sent"]},
    attempt={"type": "integer"},
    status={"type": ["integer", "null"]},
    error=_NULLABLE,
)
_WEBHOOK = obj(
    id=TEXT,
    name=TEXT,
    url=TEXT,
    events=array(TEXT),
    description=TEXT,
    action=_NULLABLE,
    payload={"type": ["object", "null"]},
)


def _endpoint(method: str, path: str, summary: str, answers: list[Answer], **more: Any) -> Endpoint:
    missing = Answer(404, "No such project, or no such thing in it.", ERROR)
    answers = [*answers, _UNAUTHORIZED, _FORBIDDEN, missing]
    return Endpoint(method, f"{_PROJECT}/{path}", summary, answers, auth="apiKey", tag="Projects", **more)


_SECRETS = (
    _endpoint(
        "POST",
        "secrets",
        "Make a secret",
        [
            Answer(200, "The secret; `data` is empty here and everywhere.", _SECRET),
            _BAD,
            _TAKEN,
            _TOO_MANY,
            Answer(501, "A secret of the type docker.", ERROR),
            _LOCKED,
        ],
        description="Stored encrypted, and never shown again. Services and providers use it by its name.",
        body=_SECRET_BODY,
    ),
    _endpoint("GET", "secrets", "List secrets", [Answer(200, "The secrets, by name.", obj(secrets=array(_SECRET)))]),
    _endpoint(
        "PUT",
        "secrets/{id}",
        "Replace a secret",
        [
            Answer(200, "The secret.", _SECRET),
            _BAD,
            _TAKEN,
            Answer(501, "A secret of the type docker.", ERROR),
            _LOCKED,
        ],
        body=_SECRET_BODY,
    ),
    _endpoint("DELETE", "secrets/{id}", "Delete a secret", [Answer(204, "Deleted.")]),
)


def _services(where: str, of: str) -> tuple[Endpoint, ...]:
    shown = Answer(200, "The spec, with its id.", _SPEC)
    return (
        _endpoint(
            "POST",
            f"{where}services",
            f"Make a service of {of}",
            [shown, _BAD, _TAKEN, _TOO_MANY],
            description="""Agents are called into the rooms at once, as those of the services in the server's file. The URL must
            be on the public internet, or below one of the operator's `call_urls`.""",
            body=_SPEC,
        ),
        _endpoint(
            "GET",
            f"{where}services",
            f"List services of {of}",
            [Answer(200, "The specs, by name.", obj(services=array(_SPEC)))],
        ),
        _endpoint("GET", f"{where}services/{{id}}", f"Show a service of {of}", [shown]),
        _endpoint("GET", f"{where}services/by-name/{{id}}", f"Show a service of {of} by its name", [shown]),
        _endpoint("PUT", f"{where}services/{{id}}", f"Replace a service of {of}", [shown, _BAD, _TAKEN], body=_SPEC),
        _endpoint(
            "DELETE",
            f"{where}services/{{id}}",
            f"Delete a service of {of}",
            [Answer(204, "Deleted; its agents are told to leave.")],
        ),
    )


_WEBHOOKS = (
    _endpoint(
        "POST",
        "webhooks",
        "Make a webhook",
        [
            Answer(200, "The webhook, with the secret that signs what is sent: it is not shown again.", _WEBHOOK),
            _BAD,
            _TAKEN,
            _TOO_MANY,
            _LOCKED,
        ],
        description="Events of the project's rooms are sent to the URL, signed, and tried again when that fails.",
        body=_WEBHOOK_BODY,
    ),
    _endpoint(
        "GET", "webhooks", "List webhooks", [Answer(200, "The webhooks, by name.", obj(webhooks=array(_WEBHOOK)))]
    ),
    _endpoint(
        "GET",
        "webhooks/{id}",
        "Show a webhook and its last deliveries",
        [Answer(200, "The webhook; the newest delivery first.", obj(deliveries=array(_DELIVERY)))],
    ),
    _endpoint(
        "PUT",
        "webhooks/{id}",
        "Replace a webhook",
        [Answer(200, "The webhook.", _WEBHOOK), _BAD, _TAKEN, _LOCKED],
        description="Without a `secret` it keeps its own.",
        body=_WEBHOOK_BODY,
    ),
    _endpoint("DELETE", "webhooks/{id}", "Delete a webhook", [Answer(204, "Deleted.")]),
)

CONFIGURED = (*_SECRETS, *_services("", "all rooms"), *_services("rooms/{room}/", "a room"), *_WEBHOOKS)
