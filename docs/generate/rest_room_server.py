"""The endpoints of a room server, one entry for each route of its application."""

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj

__all__ = ["ENDPOINTS", "SECURITY"]

SECURITY: dict[str, Schema] = {
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
_ROOM = obj(("id", "name", "metadata"), id=TEXT, name=TEXT, metadata=_OBJECT)
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
_USAGE = obj(
    hour=TEXT,
    room=TEXT,
    identity=TEXT,
    model=TEXT,
    requests=_INTEGER,
    input_tokens=_INTEGER,
    cached_tokens=_INTEGER,
    output_tokens=_INTEGER,
    seconds=_NUMBER,
    unmeasured=_INTEGER,
)
_SESSION = obj(id=TEXT, room_name=TEXT, participants=array(obj(name=TEXT, role=TEXT)))

_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key or token is missing, wrong, revoked or expired.", ERROR)
_FORBIDDEN = Answer(403, "The token is for another room.", ERROR)
_NO_PROJECT = Answer(404, "No such project, or it is not the key's.", ERROR)
_NO_ROOM = Answer(404, "No such project or room.", ERROR)
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
            Answer(503, "The server stops.", headers={"Retry-After": "Seconds to wait."}),
        ],
        description="A WebSocket upgrade. The room opens when its first participant joins.",
        parameters=(Parameter("token", "The participant token, when there is no Authorization header."),),
        auth="participantToken",
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
            if_not_exists={"type": "boolean", "default": False},
        ),
        auth="apiKey",
        tag="Projects",
    ),
    Endpoint(
        "GET",
        f"{_PROJECT}/rooms",
        "List rooms",
        [Answer(200, "The rooms.", obj(rooms=array(_ROOM))), _BAD, _UNAUTHORIZED, _NO_PROJECT],
        parameters=_PAGE,
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
            Answer(200, "One entry for each hour, room, identity and model.", obj(usage=array(_USAGE))),
            _BAD,
            _UNAUTHORIZED,
            _NO_PROJECT,
        ],
        parameters=(
            Parameter("room", "Only this room.", TEXT),
            Parameter("since", "Only hours from this ISO 8601 time on; without an offset it is UTC.", TEXT),
            Parameter("until", "Only hours before this ISO 8601 time.", TEXT),
            Parameter("limit", "Most entries in the answer; at most 1000.", {"type": "integer", "default": 1000}),
            Parameter("offset", "Entries to skip.", {"type": "integer", "default": 0}),
        ),
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

_LOGIN_TEXT = "For the MeshAgent CLI's `setup`, with PKCE. Answers this machine only; left out with `oauth = false`."

_LOGIN = (
    Endpoint(
        "GET",
        "/oauth/authorize",
        "Begin a login",
        [
            Answer(302, "Go on at `redirect_uri`, with `code` and `state`.", headers={"Location": "The address."}),
            _BAD,
            Answer(404, "The caller is on another machine, or there is no project yet.", ERROR),
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

ENDPOINTS = (*_OPERATIONS, *_ROOMS, *_PROJECTS, *_LOGIN)
"""Every route of the room server."""
