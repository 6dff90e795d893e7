"""The endpoints of a room server, one entry for each route of its application."""

from dataclasses import fields
from typing import Any

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj
from docs.generate.rest_configured import CONFIGURED
from docs.generate.rest_mcp import MCP
from docs.generate.rest_queues import QUEUES
from docs.generate.rest_studio import STUDIO
from docs.generate.rest_triggers import MAILBOXES, SCHEDULED_TASKS, TRIGGERS
from meshhost.quotas.quota import Resource, ServerQuota

__all__ = ["ENDPOINTS", "SECURITY"]

SECURITY: dict[str, Schema] = {
    "operatorKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "The operator's key; where it is said, also an API key of the tenant.",
    },
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of the project, or a login of /oauth/token.",
    },
    "participantToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A participant token for the room.",
    },
}

_OK = obj(("ok",), ok={"type": "boolean"})
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_TIME: Schema = {"type": ["number", "null"], "description": "Seconds since 1970."}
_NULLABLE: Schema = {"type": ["string", "null"]}
_OBJECT: Schema = {"type": "object"}
_ANNOTATIONS: Schema = {"type": "object", "additionalProperties": TEXT}
_ROOM = obj(("id", "name", "metadata"), id=TEXT, name=TEXT, metadata=_OBJECT, annotations=_ANNOTATIONS)
_LISTED_ROOM = obj(
    ("id", "name", "metadata", "open"), id=_NULLABLE, name=TEXT, metadata=_OBJECT, open={"type": "boolean"}
)
_KEY = obj(("id", "name"), id=TEXT, name=TEXT, description=TEXT)
_ATTEMPT = obj(at=_NUMBER, url=TEXT, outcome=TEXT, status={"type": ["integer", "null"]}, error=_NULLABLE)
_CALL = obj(
    url=TEXT,
    path=TEXT,
    identity=TEXT,
    called_at=_TIME,
    outcome=_NULLABLE,
    status={"type": ["integer", "null"]},
    error=_NULLABLE,
    joined_at=_TIME,
    is_present={"type": "boolean"},
    next_call_at=_TIME,
    total=_INTEGER,
    attempts=array(_ATTEMPT),
)
_PRICE: Schema = {
    **obj(currency=TEXT, input=TEXT, cached_input=TEXT, cache_write=TEXT, output=TEXT),
    "nullable": True,
    "description": "Per million tokens, as decimal numbers in texts; null: no price was set.",
}
_COST: Schema = {**obj(currency=TEXT, amount=TEXT), "nullable": True, "description": "Exact; null: no price was set."}
_COUNTED: dict[str, Schema] = {
    "model": TEXT,
    "requests": _INTEGER,
    "input_tokens": _INTEGER,
    "cached_tokens": _INTEGER,
    "cache_write_tokens": _INTEGER,
    "output_tokens": _INTEGER,
    "seconds": _NUMBER,
    "unmeasured": _INTEGER,
    "price": _PRICE,
    "cost": _COST,
}
_USAGE = obj(hour=TEXT, room=TEXT, identity=TEXT, **_COUNTED)
_USAGE_TOTAL = obj(begin=TEXT, tenant=TEXT, tenant_name=TEXT, **_COUNTED)
_USAGE_WINDOW = (
    Parameter("since", "Only hours from this ISO 8601 time on; without an offset it is UTC.", TEXT),
    Parameter("until", "Only hours before this ISO 8601 time.", TEXT),
    Parameter("limit", "Most entries in the answer; at most 1000.", {"type": "integer", "default": 1000}),
    Parameter("offset", "Entries to skip.", {"type": "integer", "default": 0}),
)
_SESSION = obj(id=TEXT, room_name=TEXT, participants=array(obj(name=TEXT, role=TEXT)))

_TENANT_ANSWER = obj(id=TEXT, name=TEXT, suspended=_NULLABLE)
_LIMIT: Schema = {"type": ["number", "null"], "description": "Null: no limit."}
_LIMIT_NAMES = [field.name for field in fields(ServerQuota)]
_LIMITS: dict[str, Schema] = dict.fromkeys(_LIMIT_NAMES, _LIMIT)
_USE: dict[str, Schema] = {resource.value: {"type": ["integer", "null"]} for resource in Resource}
_TENANT_SHOWN = obj(
    id=TEXT,
    name=TEXT,
    suspended=_NULLABLE,
    quota=obj(**_LIMITS),
    use={**obj(**_USE), "description": "Null: not known."},
)
_DELETED = obj(id=TEXT, name=TEXT, deleted={"type": "boolean"})
_TENANT_KEY = obj(id=TEXT, name=TEXT, description=TEXT, role=TEXT, expires_at=_TIME, last_used_at=_TIME)

_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key or token is missing, wrong, revoked or expired.", ERROR)
_FORBIDDEN = Answer(403, "The token is for another room.", ERROR)
_NO_PROJECT = Answer(404, "No such project, or it is not the key's.", ERROR)
_NO_ROOM = Answer(404, "No such project or room.", ERROR)
_OVER_QUOTA = Answer(
    429,
    "The tenant is over its quota; `quota` names the limit.",
    obj(("error", "code", "quota"), error=TEXT, code=_INTEGER, quota=TEXT),
    headers={"Retry-After": "Seconds to wait."},
)
_PROJECT = "/accounts/projects/{project}"
_PAGE = (
    Parameter("limit", "Most rooms in the answer; at most 1000.", {"type": "integer", "default": 50}),
    Parameter("offset", "Rooms to skip.", {"type": "integer", "default": 0}),
)

_OPERATIONS = (
    Endpoint("GET", "/", "Say that a server is here", [Answer(200, "It is.", _OK)], tag="Operation"),
    Endpoint("GET", "/livez", "Liveness", [Answer(200, "The process answers.", _OK)], tag="Operation"),
    Endpoint(
        "GET",
        "/readyz",
        "Readiness",
        [
            Answer(200, "Participants can join.", _OK),
            Answer(503, "The server stops, or its queue store does not answer.", obj(ok={}, reason=TEXT)),
        ],
        tag="Operation",
    ),
    Endpoint(
        "GET", "/metrics", "Metrics", [Answer(200, "Prometheus text.", TEXT, media="text/plain")], tag="Operation"
    ),
)

_ROOMS = (
    Endpoint(
        "GET",
        "/rooms/{room}",
        "Join a room",
        [
            Answer(101, "Joined: the room protocol follows."),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
            _OVER_QUOTA,
            Answer(503, "The server stops.", headers={"Retry-After": "Seconds to wait."}),
        ],
        description="A WebSocket upgrade. The room opens when its first participant joins.",
        parameters=(Parameter("token", "The participant token, when there is no Authorization header."),),
        auth="participantToken",
        tag="Rooms",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/voice/{agent}",
        "Talk with an agent",
        [
            Answer(101, "The call begins: sound in binary, the rest in JSON (docs/how-to/voice.md)."),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
            _OVER_QUOTA,
            Answer(503, "The server stops.", headers={"Retry-After": "Seconds to wait."}),
        ],
        description="A WebSocket upgrade. The token must grant `messaging` with `send` and `list`.",
        parameters=(
            Parameter("token", "The participant token, when there is no Authorization header."),
            Parameter("rate", "Samples per second, both ways: a multiple of 50 from 8000 to 48000 (default 16000)."),
            Parameter("transcript_path", "A thread of the room for the transcript."),
            Parameter("agent", "The name of the agent.", place="path"),
        ),
        auth="participantToken",
        tag="Rooms",
    ),
    Endpoint(
        "GET",
        "/link",
        "Open a link, as a service host that dials in",
        [
            Answer(101, "The protocol of the link follows."),
            _UNAUTHORIZED,
            _FORBIDDEN,
            Answer(404, "This server takes no links.", ERROR),
            Answer(503, "The server stops.", headers={"Retry-After": "Seconds to wait."}),
        ],
        description="""A WebSocket upgrade, with a key of the role developer, or the operator's. The reference page of the link
        says what is spoken.""",
        auth="apiKey",
        tag="Rooms",
    ),
    Endpoint(
        "GET",
        "/files/{token}",
        "Download a file",
        [
            Answer(200, "The file.", {"type": "string", "contentEncoding": "binary"}, media="application/octet-stream"),
            _UNAUTHORIZED,
            Answer(404, "The file is gone.", ERROR),
        ],
        description="The address comes from the room (`storage.download_url`) and is good for an hour.",
        tag="Rooms",
    ),
    Endpoint(
        "*",
        "/rooms/{room}/v1/{path}",
        "Use a model",
        [
            Answer(200, "What the provider answered; also its other statuses.", {}),
            _UNAUTHORIZED,
            _FORBIDDEN,
            Answer(404, "No provider serves this model.", {}),
            Answer(413, "The request is too large.", {}),
            Answer(503, "The provider is not ready.", {}),
        ],
        description="""The LLM gateway: passes requests of the OpenAI API on to the provider that serves the model, streamed
        answers included. `GET models` lists the models of all providers. Errors have the form of the OpenAI API.""",
        body=_OBJECT,
        is_body_required=False,
        auth="participantToken",
        tag="LLM gateway",
    ),
    *QUEUES,
)

_PROJECTS = (
    Endpoint(
        "GET",
        "/accounts/projects",
        "List the projects of the key: one",
        [Answer(200, "The project.", obj(projects=array(obj(id=TEXT, name=TEXT)))), _UNAUTHORIZED],
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "POST",
        f"{_PROJECT}/api-keys",
        "Make an API key",
        [
            Answer(200, "The key; `value` is shown only here.", obj(id=TEXT, value=TEXT, name=TEXT)),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
        ],
        body=obj(name={"type": "string", "default": "key"}, description={"type": "string", "default": ""}),
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/api-keys",
        "List API keys",
        [Answer(200, "The keys, without their values.", obj(keys=array(_KEY))), _UNAUTHORIZED, _NO_PROJECT],
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "DELETE",
        f"{_PROJECT}/api-keys/{{id}}",
        "Revoke an API key",
        [
            Answer(204, "Revoked; participants with tokens of this key are disconnected."),
            _UNAUTHORIZED,
            Answer(404, "No such project or key.", ERROR),
        ],
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "POST",
        f"{_PROJECT}/rooms",
        "Make a room",
        [
            Answer(200, "The room.", _ROOM),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
            Answer(409, "There is a room of this name.", ERROR),
        ],
        description="Not required: a room is made when somebody joins it.",
        body=obj(
            ("name",),
            name=TEXT,
            metadata={"type": ["object", "null"]},
            annotations={"type": ["object", "null"], "additionalProperties": TEXT},
            if_not_exists={"type": "boolean", "default": False},
        ),
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/rooms",
        "List rooms",
        [
            Answer(
                200,
                "The rooms; with `page_size` also how many there are, and the token of the next page.",
                obj(("rooms",), rooms=array(_LISTED_ROOM), total=_INTEGER, continuation_token=_NULLABLE),
            ),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
        ],
        parameters=(
            *_PAGE,
            Parameter("page_size", "Instead of `limit`: most rooms of a page, of those that are recorded.", _INTEGER),
            Parameter("continuation_token", "With `page_size`: the token of the page before.", TEXT),
            Parameter("filter", "With `page_size`: a part of the room's name.", TEXT),
            Parameter(
                "all",
                "1: also rooms that were never recorded, but are open or have a queue; they have no id.",
                {"enum": ["0", "1", "true"], "default": "0"},
            ),
        ),
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/rooms/{{name}}",
        "Get a room by its name",
        [Answer(200, "The room.", _ROOM), _UNAUTHORIZED, _NO_ROOM],
        parameters=(Parameter("room", "The room's name.", place="path"),),
        auth="apiKey",
        tag="Projects",
        shown=f"{_PROJECT}/rooms/{{room}}",
    ),
    Endpoint(
        "PUT",
        f"{_PROJECT}/rooms/{{id}}",
        "Change the metadata of a room",
        [Answer(200, "The room.", _ROOM), _BAD, _UNAUTHORIZED, _NO_ROOM],
        description="Metadata and annotations are replaced. A room keeps its name.",
        body=obj(
            name=TEXT,
            metadata={"type": ["object", "null"]},
            annotations={"type": ["object", "null"], "additionalProperties": TEXT},
        ),
        parameters=(Parameter("room", "The room's id.", place="path"),),
        auth="apiKey",
        tag="Projects",
        shown=f"{_PROJECT}/rooms/{{room}}",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/rooms/{{name}}/status",
        "Show whether a room is open",
        [
            Answer(200, "Whether it is.", obj(("status",), status={"enum": ["Allocated", "Unallocated"]})),
            _BAD,
            _UNAUTHORIZED,
            _NO_ROOM,
        ],
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "DELETE",
        f"{_PROJECT}/rooms/{{id}}",
        "Delete a room by its id",
        [Answer(204, "Deleted; if it was open, it has ended."), _UNAUTHORIZED, _NO_ROOM],
        parameters=(Parameter("room", "The room's id.", place="path"),),
        auth="apiKey",
        tag="Projects",
        shown=f"{_PROJECT}/rooms/{{room}}",
    ),
    Endpoint(
        "POST",
        f"{_PROJECT}/rooms/{{name}}/connect",
        "Get a token for a room",
        [
            Answer(
                200,
                "A token for the user `cli` that may do everything in the room, and where to join.",
                obj(jwt=TEXT, room_name=TEXT, project_id=TEXT, room_url=TEXT),
            ),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
        ],
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/rooms/{{name}}/calls",
        "Show the calls of a room's services",
        [Answer(200, "One entry for each service path.", obj(calls=array(_CALL))), _BAD, _UNAUTHORIZED, _NO_ROOM],
        description="What became of the calls of the configured services into the room; none when it is not open.",
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/usage",
        "Show what the project's rooms used of models",
        [
            Answer(200, "One entry for each hour, room, identity, model and price.", obj(usage=array(_USAGE))),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
        ],
        parameters=(Parameter("room", "Only this room.", TEXT), *_USAGE_WINDOW),
        description="Counted by the gateway. What agents report of their own work is in their host's metrics.",
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/sessions/active",
        "List open rooms and who is there",
        [Answer(200, "The open rooms by name.", obj(sessions=array(_SESSION))), _UNAUTHORIZED, _NO_PROJECT],
        auth="apiKey",
        tag="Projects",
    ),
    *SCHEDULED_TASKS,
    *MAILBOXES,
    *CONFIGURED,
    *(
        Endpoint(
            "*",
            path,
            "Not offered",
            [_UNAUTHORIZED, _NO_PROJECT, Answer(501, "The rest of MeshAgent's REST API; the reason says what.", ERROR)],
            auth="apiKey",
            tag="Projects",
        )
        for path in (f"{_PROJECT}/{{what}}", f"{_PROJECT}/{{what}}/{{rest}}")
    ),
)

_TENANT = "/tenants/{tenant}"
_NOT_OPERATOR = Answer(403, "The key is a tenant's, or of a role that may not do this.", ERROR)
_NO_TENANT = Answer(404, "No such tenant, or it is not the key's.", ERROR)
_TAKEN = Answer(409, "Another tenant has the name.", ERROR)
_NAME = obj(("name",), name={"type": "string", "description": "1-63 letters, digits, `-`, `_` and `.`."})
_TAR = "application/x-tar"
_COUNT = {"type": "integer"}
_IMPORTED = obj(
    id=TEXT,
    rooms=_COUNT,
    queues=_COUNT,
    messages=_COUNT,
    dead_letters=_COUNT,
    triggers=_COUNT,
    documents=_COUNT,
    files=_COUNT,
    tables=_COUNT,
    table_bytes=_COUNT,
    file_bytes=_COUNT,
    body_bytes=_COUNT,
    usage_rows=_COUNT,
)
_IMPORT_ERRORS = (
    Answer(400, "The archive is damaged, incomplete or of a newer version; nothing was imported.", ERROR),
    Answer(409, "A tenant or room of the name is there.", ERROR),
    Answer(429, "An archive is being imported for the tenant, or the room is over its quota.", ERROR),
    Answer(507, "The disk has no room for it; nothing was imported.", ERROR),
)
_BY_NAME = (Parameter("tenant", "The tenant's name or id.", place="path"),)


def _of_tenants(method: str, path: str, summary: str, answers: list[Answer], **more: Any) -> Endpoint:
    parameters = (*(_BY_NAME if "{tenant}" in path else ()), *more.pop("parameters", ()))
    return Endpoint(
        method,
        path,
        summary,
        [*answers, _UNAUTHORIZED, _NOT_OPERATOR],
        parameters=parameters,
        auth="operatorKey",
        tag="Tenants",
        **more,
    )


_TENANTS = (
    _of_tenants(
        "GET",
        "/usage",
        "Show what all tenants used of models",
        [
            Answer(200, "One entry for each time, tenant, model and price.", obj(usage=array(_USAGE_TOTAL))),
            _BAD,
        ],
        parameters=(
            Parameter(
                "step", "What is summed: each hour or each day of UTC.", {"enum": ["hour", "day"], "default": "hour"}
            ),
            *_USAGE_WINDOW,
        ),
        description="Over all rooms and participants. Those of one tenant are shown with its own key, under its project.",
    ),
    _of_tenants(
        "POST", "/tenants", "Make a tenant", [Answer(200, "The tenant.", _TENANT_ANSWER), _BAD, _TAKEN], body=_NAME
    ),
    _of_tenants(
        "GET",
        "/tenants",
        "List tenants",
        [Answer(200, "The tenants by name.", obj(tenants=array(_TENANT_ANSWER))), _BAD],
        parameters=(
            Parameter("limit", "Most tenants in the answer; at most 1000.", {"type": "integer", "default": 1000}),
            Parameter("offset", "Tenants to skip.", {"type": "integer", "default": 0}),
        ),
    ),
    _of_tenants(
        "GET",
        _TENANT,
        "Show a tenant",
        [Answer(200, "The tenant, its limits and what it uses of them.", _TENANT_SHOWN), _NO_TENANT],
        description="Also with any key of the tenant.",
    ),
    _of_tenants(
        "PATCH",
        f"{_TENANT}/quota",
        "Set limits of a tenant",
        [Answer(200, "The tenant, its limits and what it uses of them.", _TENANT_SHOWN), _BAD, _NO_TENANT],
        description="""Limits that are not named stay; `default` lets the server's default hold again. What is over a new limit
        stays too. Other servers over the same store follow within 2 s.""",
        body=obj(**{name: {"type": ["number", "string", "null"]} for name in _LIMITS}),
    ),
    _of_tenants(
        "PATCH",
        _TENANT,
        "Rename a tenant",
        [Answer(200, "The tenant.", _TENANT_ANSWER), _BAD, _NO_TENANT, _TAKEN],
        body=_NAME,
    ),
    _of_tenants(
        "DELETE",
        _TENANT,
        "Delete a tenant",
        [
            Answer(200, "Nothing of it is left.", _DELETED),
            Answer(202, "The deletion goes on; the same request waits for its end.", _DELETED),
            _NO_TENANT,
        ],
        description="Its keys, tokens and file addresses are refused from then on; then all that it keeps is removed.",
    ),
    _of_tenants(
        "DELETE",
        f"{_TENANT}/rooms/{{room_name}}",
        "Delete a room with everything in it",
        [
            Answer(200, "Nothing of it is left.", _DELETED),
            Answer(202, "The deletion goes on; the same request waits for its end.", _DELETED),
            _BAD,
            _NO_TENANT,
        ],
        description="Also a room without a record. Tokens that were signed before are refused when it is made again.",
    ),
    _of_tenants(
        "GET",
        f"{_TENANT}/archive",
        "Export a tenant",
        [Answer(200, "An archive: a tar with a checksum at its end, without API keys.", media=_TAR), _NO_TENANT],
        description="Made while it is sent. A connection that breaks off means that the export failed.",
    ),
    _of_tenants(
        "PUT",
        f"{_TENANT}/archive",
        "Import a tenant under a new name",
        [Answer(200, "All is there; how much of each kind.", _IMPORTED), *_IMPORT_ERRORS],
        description="The body is an archive of a tenant. It is checked as a whole before anything is imported.",
    ),
    _of_tenants(
        "GET",
        f"{_TENANT}/rooms/{{room_name}}/archive",
        "Export a room",
        [Answer(200, "An archive of the room.", media=_TAR), _BAD, Answer(404, "No such tenant or room.", ERROR)],
        description="Also with an admin's key of the tenant.",
    ),
    _of_tenants(
        "PUT",
        f"{_TENANT}/rooms/{{room_name}}/archive",
        "Import a room that is not there",
        [Answer(200, "All is there; how much of each kind.", _IMPORTED), *_IMPORT_ERRORS, _NO_TENANT],
        description="The body is an archive of a room, of this name or another. Also with an admin's key of the tenant.",
    ),
    _of_tenants(
        "POST",
        f"{_TENANT}/suspend",
        "Suspend a tenant",
        [Answer(200, "The tenant.", _TENANT_ANSWER), _BAD, _NO_TENANT],
        description="Its keys and tokens are refused with 403 and the reason; its connections are closed within 2 s.",
        body=obj(reason={"type": "string", "default": "by the operator"}),
    ),
    _of_tenants(
        "POST",
        f"{_TENANT}/resume",
        "Resume a tenant",
        [Answer(200, "The tenant.", _TENANT_ANSWER), _NO_TENANT],
    ),
    _of_tenants(
        "GET",
        f"{_TENANT}/keys",
        "List the API keys of a tenant",
        [Answer(200, "The keys, without their values.", obj(keys=array(_TENANT_KEY))), _NO_TENANT],
        description="Also with any key of the tenant.",
    ),
    _of_tenants(
        "POST",
        f"{_TENANT}/keys",
        "Make an API key of a tenant",
        [
            Answer(200, "The key, with its `value`, which is shown only here.", _TENANT_KEY),
            _BAD,
            _NO_TENANT,
            _OVER_QUOTA,
        ],
        description="Also with an admin's key of the tenant.",
        body=obj(
            name={"type": "string", "default": "key"},
            description={"type": "string", "default": ""},
            role={"enum": ["viewer", "developer", "admin"], "default": "admin"},
            expires_at=_TIME,
        ),
    ),
    _of_tenants(
        "DELETE",
        f"{_TENANT}/keys/{{id}}",
        "Revoke an API key of a tenant",
        [
            Answer(204, "Revoked; participants with tokens of this key are disconnected."),
            Answer(404, "No such tenant or key, or it is not the key's tenant.", ERROR),
        ],
        description="Also with an admin's key of the tenant.",
    ),
)

_LOGIN_TEXT = "For the MeshAgent CLI's `setup`, with PKCE. Answers this machine only; left out with `oauth = false`."

_LOGIN = (
    Endpoint(
        "GET",
        "/oauth/authorize",
        "Begin a login",
        [
            Answer(200, "A page that asks for the one-time code on the server's console.", media="text/html"),
            _BAD,
            Answer(404, "The caller is no program of this machine, or it is not clear which project is meant.", ERROR),
        ],
        description=_LOGIN_TEXT,
        parameters=(
            Parameter("redirect_uri", "Where to go on: an address on this machine.", required=True),
            Parameter("code_challenge", "The PKCE challenge.", required=True),
            Parameter("code_challenge_method", "S256.", {"const": "S256"}, required=True),
            Parameter("client_id", "The client."),
            Parameter("state", "Returned as it is."),
        ),
        tag="Login",
    ),
    Endpoint(
        "POST",
        "/oauth/authorize",
        "Prove a login by the code on the server's console",
        [
            Answer(303, "Go on at `redirect_uri`, with `code` and `state`.", headers={"Location": "The address."}),
            Answer(403, "The code is wrong, or the login has ended.", media="text/html"),
            Answer(404, "The caller is no program of this machine.", ERROR),
        ],
        description="Sent by the page that the GET answered.",
        tag="Login",
    ),
    Endpoint(
        "POST",
        "/oauth/token",
        "End a login",
        [
            Answer(200, "An access token for a day.", obj(access_token=TEXT, token_type=TEXT, expires_in=_INTEGER)),
            Answer(400, "The code is wrong, used or expired.", ERROR),
            Answer(404, "The caller is on another machine.", ERROR),
        ],
        description=_LOGIN_TEXT,
        body=obj(
            ("code", "code_verifier", "redirect_uri"), code=TEXT, code_verifier=TEXT, redirect_uri=TEXT, client_id=TEXT
        ),
        body_media="application/x-www-form-urlencoded",
        tag="Login",
    ),
)

ENDPOINTS = (*_OPERATIONS, *_ROOMS, *MCP, *TRIGGERS, *_PROJECTS, *_TENANTS, *_LOGIN, *STUDIO)
"""Every route of the room server."""
