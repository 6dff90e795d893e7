"""The endpoints of a service host, one entry for each route of its application."""

from pydantic import BaseModel

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj
from meshhost.hosting.http.pages import AgentQuery, LogQuery

__all__ = ["ENDPOINTS", "SECURITY"]

SECURITY: dict[str, Schema] = {
    "adminKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "MESHHOST_ADMIN_KEY. A host without one takes these requests from its own machine only.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Meshhost-Signature",
        "description": "`Bearer <JWT>`, HS256 with the webhook secret: `sha256` of the body, `iat` and `jti`. "
        "A host without a secret takes unsigned calls from its own machine. `Meshagent-Signature` is read too.",
    },
}

_OK = obj(("ok",), ok={"type": "boolean"})
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_BOOLEAN: Schema = {"type": "boolean"}
_NULL_TEXT: Schema = {"type": ["string", "null"]}
_NULL_NUMBER: Schema = {"type": ["number", "null"]}
_OBJECT: Schema = {"type": "object"}
_TEXTS = array(TEXT)
_AGENT = obj(
    id=TEXT,
    state=TEXT,
    tenant=TEXT,
    room=TEXT,
    identity=TEXT,
    path=TEXT,
    isolation={"enum": ["task", "process"]},
    restarts=_INTEGER,
    age_seconds=_NUMBER,
    state_seconds=_NUMBER,
    waits_for=_NULL_TEXT,
    activity=_NULL_TEXT,
    leave_seconds=_NULL_NUMBER,
    reason=_NULL_TEXT,
    last_error={"anyOf": [obj(type=TEXT, text=TEXT, traceback=TEXT), {"type": "null"}]},
    memory_bytes={"type": ["integer", "null"]},
)
_HOLD = obj(tenant=TEXT, path=_NULL_TEXT, reason=TEXT, hold=_INTEGER, on_probation=_BOOLEAN, seconds_left=_NUMBER)
_FREEZE = obj(since=_NUMBER, reason=_NULL_TEXT, until_restart=_BOOLEAN)
_QUOTA = obj(
    max_agents={"type": ["integer", "null"]},
    starts_per_second=_NULL_NUMBER,
    max_waiting=_INTEGER,
    memory_mb=_NULL_NUMBER,
    weight=_NUMBER,
)
_TENANT = obj(
    tenant=TEXT,
    agents=_INTEGER,
    waiting=_INTEGER,
    memory_bytes=_INTEGER,
    frozen=_BOOLEAN,
    freeze={"anyOf": [_FREEZE, {"type": "null"}]},
    quarantine=array(_HOLD),
    quota=_QUOTA,
)
_LIVENESS = obj(ok=_BOOLEAN)
_READINESS = obj(ok=_BOOLEAN, reason=TEXT, reasons=_TEXTS, missing=_TEXTS, load=_OBJECT)
_DESCRIPTION = obj(version=TEXT, kind=TEXT, metadata=_OBJECT, ports=array(_OBJECT))

_UNAUTHORIZED = Answer(401, "The admin key is wrong; without one: the caller is on another machine.", ERROR)
_BAD = Answer(400, "A field is wrong; the text names it.", ERROR)
_NO_AGENT = Answer(404, "No agent with this id.", ERROR)
_WAIT = {"Retry-After": "Seconds after which another call makes sense."}
_REFUSALS = (
    Answer(400, "Malformed: the text names the field. Also a body that breaks off.", ERROR),
    Answer(401, "The signature is missing, wrong, old or used before.", ERROR),
    Answer(403, "The room server is not allowed, or the token is expired or for another room.", ERROR),
    Answer(404, "No agent at this path.", ERROR),
    Answer(405, "Another method than POST, or GET without a WebSocket upgrade.", ERROR),
    Answer(429, "The tenant is over its quota, frozen or in quarantine.", ERROR, headers=_WAIT),
    Answer(503, "The host is starting, draining, full or overloaded.", ERROR, headers=_WAIT),
)


_QUERY_TEXTS = {
    "limit": "Most agents in the answer.",
    "after": "`next` of the page before.",
    "id": "Only ids that begin so.",
    "tenant": "Only this tenant's, by id or name.",
    "path": "Only those of this path.",
    "room": "Only those of rooms of this name.",
    "state": "Only those in this state; `failed`: those that failed for good within the last hour, not listed otherwise.",
}


_LOG_TEXTS = {
    **_QUERY_TEXTS,
    "limit": "Most records in the answer: the newest.",
    "after": "`next` of the answer before; 0 for all that are kept.",
    "id": "Only those of agents whose ids begin so.",
}


def _query(model: type[BaseModel], texts: dict[str, str]) -> tuple[Parameter, ...]:
    """The parameters of a request, from the model that reads them."""
    schema = model.model_json_schema()
    properties = {name: _inlined(one, schema.get("$defs", {})) for name, one in schema["properties"].items()}
    return tuple(Parameter(name, texts[name], one) for name, one in properties.items())


def _inlined(value: Schema, definitions: Schema) -> Schema:
    """The schema without pydantic's titles, and with the parts that it keeps apart."""
    for one in value.get("anyOf", (value,)):
        if one.get("type") != "null":
            found = definitions[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            return {key: member for key, member in found.items() if key not in ("title", "description")}
    return {}


_CALLS = (
    Endpoint(
        "POST",
        "/{path}",
        "Call an agent into a room",
        [
            Answer(200, "Recorded and being started, or there already.", obj(ok=_BOOLEAN, spawn_id=TEXT, state=TEXT)),
            *_REFUSALS[:5],
            Answer(408, "The body did not arrive within 30 s.", ERROR),
            Answer(
                409, "This signed call was answered before, and its agent is gone or its path does not join.", ERROR
            ),
            Answer(413, "The body is over 1 MiB.", ERROR),
            *_REFUSALS[5:],
        ],
        description="""A webhook with the event `room.call`. `{path}` is a path of the program, such as `worker`. A repeated
        call for the same tenant, room, path and identity starts no second agent. Other events are answered with 200.""",
        body=obj(
            ("event", "data"),
            event={"const": "room.call"},
            data=obj(
                ("room_name", "room_url", "token"),
                room_name=TEXT,
                room_url=TEXT,
                token=TEXT,
                arguments={"type": "object", "default": {}},
            ),
        ),
        auth="signature",
        tag="Calls",
    ),
    Endpoint(
        "GET",
        "/{path}",
        "Call an agent by WebSocket",
        [Answer(101, "The room protocol follows on this connection, which lasts as long as the agent."), *_REFUSALS],
        description="""A WebSocket upgrade; the event stands as JSON in the header `Meshhost-Webhook`. For room servers that
        open the agent's connection themselves.""",
        auth="signature",
        tag="Calls",
    ),
)

_OPERATIONS = (
    Endpoint("GET", "/", "Say that a host is here", [Answer(200, "It is.", _OK)], tag="Operation"),
    Endpoint(
        "GET",
        "/livez",
        "Liveness",
        [
            Answer(200, "The event loop turns.", _LIVENESS),
            Answer(503, "An agent holds the event loop for too long; its path is named.", _LIVENESS),
        ],
        description="Also on MESHHOST_HEALTH_PORT, where a thread answers.",
        tag="Operation",
    ),
    Endpoint(
        "GET",
        "/readyz",
        "Readiness",
        [Answer(200, "Calls are taken.", _OK), Answer(503, "They are not; `reasons` has all reasons.", _READINESS)],
        description="Also on MESHHOST_HEALTH_PORT, where a thread answers.",
        tag="Operation",
    ),
    Endpoint(
        "GET", "/metrics", "Metrics", [Answer(200, "Prometheus text.", TEXT, media="text/plain")], tag="Operation"
    ),
    *(
        Endpoint(
            "GET",
            f"/.well-known/{name}-service.json",
            "Describe the service",
            [Answer(200, "Its paths, identities and scopes.", _DESCRIPTION)],
            tag="Operation",
        )
        for name in ("meshhost", "meshagent")
    ),
)

_ADMIN = (
    Endpoint(
        "GET",
        "/agents/logs",
        "Show the last log records",
        [
            Answer(
                200, "Oldest first. `next` is the number of the last one.", obj(records=array(_OBJECT), next=_INTEGER)
            ),
            _BAD,
            _UNAUTHORIZED,
        ],
        description="""Those of agents and of the host, from INFO on: the last 2000 are kept in memory. Each has `number`,
        `time`, `level`, `logger`, `message`, its fields, and `traceback` of an error.""",
        parameters=_query(LogQuery, _LOG_TEXTS),
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "GET",
        "/agents",
        "List agents",
        [
            Answer(200, "Oldest first; `next` when there are more.", obj(agents=array(_AGENT), next=TEXT)),
            _BAD,
            _UNAUTHORIZED,
        ],
        parameters=_query(AgentQuery, _QUERY_TEXTS),
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "GET",
        "/agents/{id}",
        "Describe an agent",
        [Answer(200, "The agent, with the traceback of its last error.", _AGENT), _UNAUTHORIZED, _NO_AGENT],
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "DELETE",
        "/agents/{id}",
        "Stop an agent",
        [
            Answer(
                202,
                "It is asked to leave, or aborted. `called_again`: a room server keeps it in its room, and calls it again.",
                obj(ok=_BOOLEAN, spawn_id=TEXT, called_again=_BOOLEAN, paused_seconds=_NULL_NUMBER),
            ),
            _BAD,
            _UNAUTHORIZED,
            _NO_AGENT,
        ],
        parameters=(
            Parameter("abort", "1 aborts it at once.", {"enum": ["0", "1", "true"], "default": "0"}),
            Parameter(
                "for", "Seconds in which calls for the agent are refused with 503; 0 ends that.", {"type": "number"}
            ),
        ),
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "GET",
        "/tenants",
        "List tenants, load and starts",
        [
            Answer(
                200,
                "Tenants with agents, a freeze or a quarantine; the host's load; waiting and running starts.",
                obj(tenants=array(_TENANT), load=_OBJECT, starts=obj(waiting=_INTEGER, running=_INTEGER)),
            ),
            _UNAUTHORIZED,
        ],
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "POST",
        "/tenants/{tenant}/freeze",
        "Freeze a tenant",
        [
            Answer(
                200,
                "Its calls are refused with 429 from now on.",
                obj(ok=_BOOLEAN, tenant=TEXT, frozen=_BOOLEAN, freeze=_FREEZE),
            ),
            _BAD,
            _UNAUTHORIZED,
        ],
        body=obj(reason={"type": "string", "description": "For operators only."}),
        is_body_required=False,
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "POST",
        "/tenants/{tenant}/thaw",
        "Thaw a tenant",
        [Answer(200, "Its calls are taken again.", obj(ok=_BOOLEAN, tenant=TEXT, frozen=_BOOLEAN)), _UNAUTHORIZED],
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "POST",
        "/quarantine/release",
        "End a quarantine",
        [
            Answer(200, "Ended.", obj(ok=_BOOLEAN, released=array(_HOLD))),
            _BAD,
            _UNAUTHORIZED,
            Answer(404, "Neither the path nor the tenant is in quarantine.", ERROR),
        ],
        body=obj(("tenant",), tenant=TEXT, path={"type": "string", "description": "Only this path (default: all)."}),
        auth="adminKey",
        tag="Administration",
    ),
    Endpoint(
        "POST",
        "/drain",
        "Drain the host",
        [
            Answer(
                202,
                "It takes no more calls; agents leave within `seconds`. The process goes on.",
                obj(ok=_BOOLEAN, agents=_INTEGER, seconds=_NUMBER),
            ),
            _UNAUTHORIZED,
        ],
        auth="adminKey",
        tag="Administration",
    ),
)

ENDPOINTS = (*_OPERATIONS, *_CALLS, *_ADMIN)
"""Every route of the service host."""
