"""The endpoints of a room server for Studio; part of `rest_room_server`."""

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj

__all__ = ["STUDIO"]

_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key, code or session is missing, wrong, used or over.", ERROR)
_FORBIDDEN = Answer(403, "The role does not allow it, or the request may be another page's.", ERROR)
_NUMBER: Schema = {"type": "number"}
_NULLABLE: Schema = {"type": ["string", "null"]}
_SESSION = obj(
    ("role", "sign_in", "version"),
    role={"enum": [None, "viewer", "developer", "admin", "operator"]},
    name=TEXT,
    tenant={"type": ["object", "null"], "properties": {"id": TEXT, "name": TEXT}},
    expires=_NUMBER,
    csrf={"type": "string", "description": "What every other request of the session has in `X-Meshhost-Csrf`."},
    may_link={"type": "boolean", "description": "Whether `POST /studio/api/link` makes a link for it."},
    sign_in={"type": "array", "items": {"enum": ["key", "code", "oidc"]}},
    oidc={"type": ["object", "null"], "properties": {"name": TEXT}},
    version=TEXT,
    ended={"type": "string", "description": "Why the session of the cookie has ended."},
)
_COUNT: Schema = {"type": "integer"}
_TIME: Schema = {"type": ["number", "null"], "description": "Seconds since 1970."}
_COUNTS: dict[str, Schema] = dict.fromkeys(("participants", "agents", "ready", "leased", "delayed", "dead"), _COUNT)
_ROOM_COUNTS = obj(
    tenant=TEXT,
    name=TEXT,
    open={"type": "boolean"},
    queues=_COUNT,
    paused=_COUNT,
    oldest_age={"type": ["number", "null"]},
    oldest_at=_TIME,
    **_COUNTS,
)
_ATTENTION = obj(
    kind={"enum": ["dead", "stuck", "paused", "service", "quota", "suspended"]},
    severity={"enum": ["error", "warning"]},
    tenant=TEXT,
    room=_NULLABLE,
    queue=_NULLABLE,
    service=_NULLABLE,
    text=TEXT,
    value={"type": ["number", "null"]},
    since=_TIME,
)
_TOTALS = obj(rooms=_COUNT, open=_COUNT, **_COUNTS)
_OVERVIEW = obj(
    ("at", "rooms", "totals", "attention"),
    at=_NUMBER,
    tenant={"type": ["object", "null"], "properties": {"id": TEXT, "name": TEXT, "suspended": _NULLABLE}},
    rooms=array(_ROOM_COUNTS),
    next=_NULLABLE,
    totals=_TOTALS,
    attention=array(_ATTENTION),
    tenants=array(obj(id=TEXT, name=TEXT, suspended=_NULLABLE, rooms=_COUNT, open=_COUNT, **_COUNTS)),
)
_LINE = obj(n=_COUNT, at=_NUMBER, level=TEXT, agent=TEXT, text=TEXT, fields={"type": "object"})
_LOG = obj(lines=array(_LINE), next=_COUNT)
_TRACE: dict[str, Schema] = {
    "trace": {"type": "string", "description": "Its id, 32 hexadecimal digits."},
    "name": {"type": "string", "description": "The name of its first span."},
    "began_at": _NUMBER,
    "seconds": _NUMBER,
    "failed": {"type": "boolean"},
    "queues": array(TEXT),
    "messages": {"type": "array", "items": TEXT, "description": "Ids of messages."},
    "agents": array(TEXT),
    "span_count": _COUNT,
    "dropped": {"type": "integer", "description": "Spans that did not fit."},
}
_TRACES = obj(traces=array(obj(**_TRACE)), next=_NULLABLE, recording={"type": "boolean"})
_SPAN = obj(
    ("id", "parent", "name", "begin", "seconds"),
    id=TEXT,
    parent={"type": "string", "description": "The span above it, which may be elsewhere; empty: none."},
    name=TEXT,
    begin=_NUMBER,
    seconds=_NUMBER,
    error={"type": "string", "description": "Why it failed; missing when it did not."},
    agent={"type": "string", "description": "The participant that reported it; missing for the server's own."},
    attributes={"type": "object"},
)
_HOST = obj(
    id=TEXT,
    url=TEXT,
    rooms=TEXT,
    local={"type": "boolean"},
    reachable={"type": "boolean"},
    ready={"type": ["boolean", "null"]},
    reasons=array(TEXT),
    error=_NULLABLE,
    tenants=array({"type": "object"}),
    load={"type": ["object", "null"]},
)
_FOUND = obj(
    found=array(
        obj(
            kind={"enum": ["tenant", "room", "queue", "message", "agent", "schedule", "file"]},
            tenant=TEXT,
            name=TEXT,
            room=_NULLABLE,
            queue=_NULLABLE,
            id=_NULLABLE,
        )
    ),
    cut={"type": "boolean"},
)
_PAGE = Answer(200, "The page.", media="text/html")

STUDIO = (
    Endpoint(
        "GET",
        "/overview",
        "The rooms of a tenant with their counts, and what needs attention",
        [
            Answer(200, "The overview.", _OVERVIEW, headers={"ETag": "Another one when something changed but ages."}),
            Answer(304, "Nothing but ages has changed."),
            _BAD,
            _UNAUTHORIZED,
        ],
        description="""Made at most every two seconds, for all who ask. The operator sees all tenants, and the rooms of the one
        that `tenant` names. What needs attention comes with the worst first: dead messages, queues that nobody serves or that
        are paused with work in them, configured agents that are not in their open rooms, quotas used to 80 %.""",
        parameters=(
            Parameter("limit", "Most rooms in the answer; at most 1000.", {"type": "integer", "default": 200}),
            Parameter("after", "The name of the last room of the page before."),
            Parameter("tenant", "For the operator: a tenant's name or id."),
        ),
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/search",
        "Find rooms, queues, agents, schedules, files and messages by a part of their names",
        [
            Answer(200, "What was found, the best first; `cut` when there may be more.", _FOUND),
            _BAD,
            _UNAUTHORIZED,
        ],
        description="""A number is also looked up as a message's id. Files are looked through for a second at most, and not for
        a viewer. The operator finds tenants, rooms and queues of all tenants.""",
        parameters=(
            Parameter("q", "A part of the name, or a message's id.", required=True),
            Parameter("limit", "Most entries in the answer; at most 100.", {"type": "integer", "default": 20}),
        ),
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/log",
        "What happened in a room lately",
        [
            Answer(200, "The newest lines, oldest first; `next` is what to ask after the next time.", _LOG),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
            Answer(404, "The room is being deleted or imported.", ERROR),
        ],
        description="""Entries of the developer log, the server's own records about the room, and what agents logged while they
        worked on messages, from memory: of a room the last 500 lines and the last 1,000 of work, lost with the server.""",
        parameters=(
            Parameter("after", "The `next` of the answer before.", {"type": "integer", "default": 0}),
            Parameter(
                "level", "The lowest level: DEBUG, INFO, WARNING, ERROR or CRITICAL.", {"default": "INFO", **TEXT}
            ),
            Parameter("agent", "Only of the participant of this name."),
            Parameter("text", "Only lines with this text in them."),
            Parameter("queue", "Only what was logged in the work on messages of this queue."),
            Parameter("message", "Only what was logged in the work on the message of this id."),
            Parameter("limit", "Most lines in the answer.", {"type": "integer", "default": 500}),
        ),
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/traces",
        "Find traces of a room",
        [
            Answer(200, "The newest first; `next` is the `before` of the next page.", _TRACES),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
            Answer(404, "The room is being deleted or imported.", ERROR),
        ],
        description="""Of many messages some are traced, and those that fail. `recording` is false where the operator keeps no
        traces. With several servers each has those that it recorded itself.""",
        parameters=(
            Parameter("queue", "Only of messages of this queue."),
            Parameter("message", "Only of the message with this id."),
            Parameter("agent", "Only those in which this participant reported something."),
            Parameter("failed", "Only those in which something failed.", {"type": "boolean", "default": False}),
            Parameter("longer", "Only those that took at least so many seconds.", {"type": "number", "default": 0}),
            Parameter("before", "The `next` of the page before."),
            Parameter("limit", "Most traces in the answer; at most 200.", {"type": "integer", "default": 50}),
        ),
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/traces/{trace}",
        "One trace with its spans",
        [
            Answer(200, "The trace; its spans by their beginning.", obj(**_TRACE, spans=array(_SPAN))),
            _UNAUTHORIZED,
            _FORBIDDEN,
            Answer(404, "There is no such trace (any more), or the room is being deleted or imported.", ERROR),
        ],
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/events",
        "Watch a room",
        [
            Answer(200, "Server-sent events.", TEXT, media="text/event-stream"),
            _BAD,
            _UNAUTHORIZED,
            Answer(404, "The room is being deleted or imported.", ERROR),
            Answer(429, "Too many streams of this tenant are open.", ERROR),
        ],
        description="""An event `room` at once and then when something changed, at most one in a second: the whole state, as
        `{"at", "open", "participants", "queues", "calls"}`. With `changes=1` what follows is mostly an event `change`, with
        `at`, `open`, the participants that `joined` and the ids of those that `left`, the `queues` that are new or different
        and the names of those that are `gone`, and `calls` where they are different. A comment comes every 15 seconds when
        nothing changes. Before the server ends the stream, because the key was revoked, the room was deleted or the server
        stops, comes an event `end` with a `reason`. Nobody joins the room by it, and it is not opened.""",
        parameters=(Parameter("changes", "1: only what changed, after the first event."),),
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/hosts",
        "The service hosts that this server knows",
        [
            Answer(200, "Each host with what it says of itself, or why it says nothing.", obj(hosts=array(_HOST))),
            _UNAUTHORIZED,
            _FORBIDDEN,
        ],
        description="""Those of the configured services, and those that `meshhost service run` started on this machine for the
        same user. The server asks with the key of its own MESHHOST_ADMIN_KEY.""",
        auth="operatorKey",
        tag="Studio",
    ),
    *(
        Endpoint(
            method,
            "/hosts/{host}/{path}",
            text,
            [
                Answer(200, "What the host answered; also its other statuses.", {"type": "object"}),
                _UNAUTHORIZED,
                _FORBIDDEN,
                Answer(404, "No such host, or its admin API has no such route.", ERROR),
                Answer(502, "The host cannot be reached, or does not take this server's admin key.", ERROR),
            ],
            description="The routes of a service host's admin API: see its OpenAPI document.",
            parameters=(Parameter("path", "The route, such as `agents`.", place="path"),),
            body={"type": "object"} if method == "POST" else None,
            is_body_required=False,
            auth="operatorKey",
            tag="Studio",
        )
        for method, text in (
            ("GET", "Ask a service host about its agents, logs and tenants"),
            ("POST", "Freeze or thaw a tenant of a host, release it from quarantine, drain the host"),
            ("DELETE", "Dismiss an agent of a host"),
        )
    ),
    Endpoint("GET", "/studio", "Open Studio", [_PAGE], tag="Studio"),
    Endpoint("GET", "/studio/{rest}", "Open Studio at a place in it", [_PAGE], tag="Studio"),
    Endpoint(
        "GET",
        "/studio/static/{version}/{path}",
        "A file of the Studio page",
        [
            Answer(200, "The file.", media="text/javascript"),
            Answer(404, "No such file in this version of Studio.", ERROR),
        ],
        tag="Studio",
    ),
    Endpoint(
        "GET",
        "/studio/api/session",
        "Who is signed in",
        [Answer(200, "The session of the cookie; a role of null when there is none.", _SESSION), _FORBIDDEN],
        tag="Studio",
    ),
    Endpoint(
        "POST",
        "/studio/api/session",
        "Sign in to Studio",
        [
            Answer(200, "Signed in.", _SESSION, headers={"Set-Cookie": "The session, for the browser only."}),
            _BAD,
            _UNAUTHORIZED,
            Answer(403, "The tenant is suspended, or the request may be another page's.", ERROR),
        ],
        description="""With an API key or the operator's key, or with the one-time code of a link. From then on the session's
        cookie is the key for all REST routes that take it, if the request has the header `X-Meshhost-Csrf` with the session's
        value, and comes from a page of this server. A session is worth what its key is worth, and ends with it.""",
        body=obj(key=TEXT, code=TEXT),
        tag="Studio",
    ),
    Endpoint("DELETE", "/studio/api/session", "Sign out", [Answer(204, "Signed out."), _FORBIDDEN], tag="Studio"),
    *(
        Endpoint(
            "GET",
            f"/studio/api/oidc/{step}",
            text,
            [
                Answer(302, where, headers={"Location": "The address."}),
                Answer(404, "No provider is configured.", ERROR),
            ],
            parameters=(Parameter(*parameter),),
            tag="Studio",
        )
        for step, text, where, parameter in (
            (
                "start",
                "Begin a sign-in by OpenID Connect",
                "On to the provider.",
                ("return", "The address of Studio to go on at."),
            ),
            (
                "callback",
                "End a sign-in by OpenID Connect",
                "On to Studio: signed in, or with `sign_in_error`.",
                ("code", "The provider's code; also `state` and `error`."),
            ),
        )
    ),
    Endpoint(
        "POST",
        "/studio/api/link",
        "Make a link that signs a browser in",
        [
            Answer(200, "The link works once; `expires_in` is in seconds.", obj(url=TEXT, expires_in=_NUMBER)),
            _UNAUTHORIZED,
            _FORBIDDEN,
        ],
        description="It signs in as the key of the request, which may be the operator's. The key is not in it.",
        auth="apiKey",
        tag="Studio",
    ),
    Endpoint(
        "POST",
        "/studio/api/rooms/{room}/token",
        "Make a token for joining a room as a person",
        [
            Answer(200, "The token, for an hour at most.", obj(jwt=TEXT, name=TEXT, room=TEXT, expires=_NUMBER)),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
        ],
        parameters=(Parameter("room", "The room.", place="path"),),
        body=obj(name={"type": "string", "default": "studio"}),
        is_body_required=False,
        auth="apiKey",
        tag="Studio",
    ),
)
