"""The endpoints of a room server for the queues of rooms; part of `rest_room_server`."""

from dataclasses import fields
from typing import Any

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj
from meshhost.stores.queue_settings import QueueSettings
from meshhost.stores.queues import MessageState

__all__ = ["QUEUES"]

_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key or token is missing, wrong, revoked or expired.", ERROR)
_FORBIDDEN = Answer(403, "The key's role, or the token's grant for the queue, does not allow it.", ERROR)
_NO_QUEUE = Answer(404, "No such queue in this room.", ERROR)
_NO_MESSAGE = Answer(404, "No such queue, or nothing is known of the message (any more).", ERROR)
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": ["number", "null"], "description": "Seconds since 1970."}
_NULLABLE: Schema = {"type": ["string", "null"]}
_ANY: Schema = {"description": "Any JSON value."}
_STATES: Schema = {"enum": [state.value for state in MessageState]}
_QUEUE = obj(
    name=TEXT,
    size={"type": "integer", "description": "Messages that wait: ready, delayed and blocked."},
    ready=_INTEGER,
    leased=_INTEGER,
    delayed=_INTEGER,
    blocked={"type": "integer", "description": "Behind another message of their key."},
    dead=_INTEGER,
    oldest_age={"type": ["number", "null"], "description": "Of the oldest message, in seconds."},
    paused=_FLAG,
)
_LARGE: Schema = {
    **obj(size=_INTEGER, sha256=TEXT, beginning=TEXT),
    "description": "Only of a large one, which is null here: its bytes, and its first characters as JSON text.",
}
_ATTEMPT = obj(began_at=_NUMBER, ended_at=_NUMBER, by=TEXT, reason=TEXT, error=TEXT)
_MESSAGE = obj(
    id=TEXT,
    state=_STATES,
    sent_at=_NUMBER,
    priority=_INTEGER,
    key=_NULLABLE,
    failures=_INTEGER,
    deliveries=_INTEGER,
    due_at=_TIME,
    expires_at=_TIME,
    began_at=_TIME,
    by=_NULLABLE,
    lease_until=_TIME,
    progress=_ANY,
    result=_ANY,
    result_body=_LARGE,
    ended_at=_TIME,
    reason=_NULLABLE,
    cancelling=_FLAG,
    seen={"type": "string", "description": "Changes with state and progress: for `seen` of a wait."},
    message=_ANY,
    body=_LARGE,
    headers={"type": "object", "additionalProperties": TEXT},
    history={**array(_ATTEMPT), "description": "Attempts that failed or were interrupted."},
)
_SECONDS: Schema = {"type": ["number", "null"], "description": "Seconds; null: the server's default."}
_COUNT: Schema = {"type": ["integer", "null"], "description": "Null: the server's default."}
_RATE: Schema = {"type": ["string", "null"], "description": "Starts per time: 10/s, 600/m, 100/h; null: no limit."}
_OWN: dict[str, Schema] = {
    "paused": _FLAG,
    "max_attempts": _COUNT,
    "max_depth": _COUNT,
    "concurrency": _COUNT,
    "rate": _RATE,
    "burst": {"type": ["integer", "null"], "description": "Null: the starts of a second, at least one."},
    "key_rate": _RATE,
    "result_ttl": {"type": "number", "default": QueueSettings().result_ttl},
}
_SETTINGS = obj(**{field.name: _OWN.get(field.name, _SECONDS) for field in fields(QueueSettings)})
_POINT = obj(
    time={"type": "string", "format": "date-time", "description": "The end of the time that the point is about."},
    ready=_INTEGER,
    delayed=_INTEGER,
    leased=_INTEGER,
    blocked=_INTEGER,
    dead=_INTEGER,
    oldest_seconds={"type": ["number", "null"], "description": "The age of the oldest message that is not dead."},
    sent=_INTEGER,
    started=_INTEGER,
    done=_INTEGER,
    failed={"type": "integer", "description": "Attempts that failed, with those that made a message dead."},
)
_SERIES = obj(points=array(_POINT), step_seconds=_INTEGER)
_STEP = Parameter(
    "step", "10: points of 10 seconds for 10 minutes; 60: of a minute for 24 hours.", {"enum": [10, 60], "default": 10}
)
_OF_QUEUE = "/rooms/{room}/queues/{queue}"


def _of_queue(method: str, path: str, summary: str, answers: list[Answer], **more: Any) -> Endpoint:
    answers = [*answers, _UNAUTHORIZED, _FORBIDDEN]
    return Endpoint(method, f"{_OF_QUEUE}{path}", summary, answers, auth="apiKey", tag="Queues", **more)


_KEPT = """The points are kept by this server, for the queues in use, also while it restarts; they begin with the
        first request for a queue that was not in use."""

QUEUES = (
    Endpoint(
        "GET",
        "/rooms/{room}/queues",
        "List the queues of a room",
        [Answer(200, "The queues by name.", obj(queues=array(_QUEUE))), _BAD, _UNAUTHORIZED, _FORBIDDEN],
        description="With an API key, or a participant token that may list queues. Wakes no room, as all that only looks.",
        auth="apiKey",
        tag="Queues",
    ),
    Endpoint(
        "GET",
        "/accounts/projects/{project}/queue-series",
        "Show how the queues of a project went on",
        [Answer(200, "The points, the oldest first, of all rooms in use together.", _SERIES), _BAD, _UNAUTHORIZED],
        description="No points when nothing happened lately.",
        parameters=(_STEP,),
        auth="apiKey",
        tag="Queues",
    ),
    Endpoint(
        "GET",
        "/rooms/{room}/queue-series",
        "Show how the queues of a room went on",
        [
            Answer(200, "The points, the oldest first, of all queues together.", _SERIES),
            _BAD,
            _UNAUTHORIZED,
            _FORBIDDEN,
        ],
        description=f"With an API key, or a participant token that may list queues. {_KEPT}",
        parameters=(_STEP,),
        auth="apiKey",
        tag="Queues",
    ),
    _of_queue(
        "GET",
        "/series",
        "Show how a queue went on",
        [Answer(200, "The points, the oldest first.", _SERIES), _BAD, _NO_QUEUE],
        description=f"With an API key, or a participant token that may list queues. {_KEPT}",
        parameters=(_STEP,),
    ),
    _of_queue(
        "GET",
        "/messages",
        "Search the messages of a queue",
        [
            Answer(
                200,
                "A page, the newest first. `next` is `before` of the next page; null: there is none.",
                obj(messages=array(_MESSAGE), next=_NULLABLE),
            ),
            _BAD,
            _NO_QUEUE,
        ],
        description="""Those that fit everything that is given, also messages that ended, while it is known how.
        A viewer's key gets neither contents nor history, and cannot search by `text`.""",
        parameters=(
            Parameter("state", "Only in this state; may be given several times.", _STATES),
            Parameter("key", "Only with this key."),
            Parameter("text", "Only with this in the message, or in the reason of a dead one."),
            Parameter("since", "Only sent at this time (seconds since 1970) or later.", _NUMBER),
            Parameter("until", "Only sent at this time or earlier.", _NUMBER),
            Parameter("before", "`next` of the page before."),
            Parameter("limit", "Most messages in the answer; at most 200.", {"type": "integer", "default": 50}),
        ),
    ),
    _of_queue(
        "GET",
        "/messages/{id}",
        "Show a message, or wait for its result",
        [
            Answer(200, "What is known of the message.", _MESSAGE),
            _BAD,
            _NO_MESSAGE,
            Answer(429, "Too many requests wait for messages.", ERROR),
        ],
        description="""A participant token that may only send to the queue, and a viewer's key, get neither contents nor
        history, but state, progress and result.""",
        parameters=(
            Parameter("wait", "Answer when it has ended, or after so many seconds; at most 60.", _NUMBER),
            Parameter("seen", "With `wait`: answer also when it is not as this `seen` of an answer says."),
        ),
    ),
    _of_queue(
        "GET",
        "/messages/{id}/body",
        "Fetch the contents of a message, however large",
        [Answer(200, "The JSON value that was sent.", _ANY), _NO_MESSAGE],
        description="Contents of a message that ended are kept only of a dead one.",
    ),
    _of_queue(
        "GET",
        "/messages/{id}/result",
        "Fetch the result of a message, however large",
        [Answer(200, "The JSON value that its worker returned.", _ANY), _NO_MESSAGE],
    ),
    _of_queue(
        "DELETE",
        "/messages/{id}",
        "Cancel a message",
        [
            Answer(
                200, "Its state: `leased` until its worker was told; as it is when it had ended.", obj(state=_STATES)
            ),
            _NO_MESSAGE,
        ],
    ),
    _of_queue("GET", "/settings", "Show the settings of a queue", [Answer(200, "The settings.", _SETTINGS), _NO_QUEUE]),
    _of_queue(
        "PATCH",
        "/settings",
        "Change settings of a queue",
        [Answer(200, "All settings.", _SETTINGS), _BAD, _NO_QUEUE],
        description="Settings that are not named stay.",
        body=_SETTINGS,
    ),
    _of_queue("POST", "/pause", "Deliver nothing of a queue", [Answer(200, "The settings.", _SETTINGS), _NO_QUEUE]),
    _of_queue("POST", "/resume", "Deliver a queue again", [Answer(200, "The settings.", _SETTINGS), _NO_QUEUE]),
    _of_queue(
        "POST",
        "/purge",
        "Delete the messages of a queue",
        [Answer(200, "How many were deleted.", obj(purged=_INTEGER)), _NO_QUEUE],
        description="All but the dead ones. They cannot be restored.",
    ),
    _of_queue(
        "POST",
        "/replay",
        "Make dead messages ready again",
        [Answer(200, "How many are ready again.", obj(replayed=_INTEGER)), _BAD, _NO_QUEUE],
        body=obj(ids={"type": ["array", "null"], "items": TEXT, "description": "Null: all dead messages."}),
        is_body_required=False,
    ),
)
