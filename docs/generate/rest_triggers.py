"""The endpoints of a room server for what starts work from outside; part of `rest_room_server`."""

from typing import Any

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj
from meshhost.triggers.signatures import Scheme

__all__ = ["MAILBOXES", "SCHEDULED_TASKS", "TRIGGERS"]

_BAD = Answer(400, "A field is missing or wrong; the text names it.", ERROR)
_UNAUTHORIZED = Answer(401, "The key or token is missing, wrong, revoked or expired.", ERROR)
_FORBIDDEN = Answer(403, "The key's role, or the token's grant for the queue, does not allow it.", ERROR)
_MISSING = Answer(404, "No such thing in this room, or the token did not make it, or may not send to its queue.", ERROR)
_TOO_MANY = Answer(429, "The room, tenant or participant has as many as it may, or the queue is full.", ERROR)
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_TIME: Schema = {"type": ["number", "null"], "description": "Seconds since 1970."}
_NULLABLE: Schema = {"type": ["string", "null"]}
_OBJECT: Schema = {"type": "object"}
_PAGE = (
    Parameter("limit", "Most entries in the answer; at most 1000.", {"type": "integer", "default": 1000}),
    Parameter("after", "The id of the last entry of the page before.", TEXT),
)
_WHEN: dict[str, Schema] = {
    "cron": {"type": ["string", "null"], "description": "Five fields, or a name such as `@daily`."},
    "every": {"type": ["number", "null"], "description": "Seconds; at least 10."},
    "at": {"type": ["number", "string", "null"], "description": "Seconds since 1970, or ISO 8601."},
    "timezone": {"type": "string", "default": "UTC"},
}
_SPEC: dict[str, Schema] = {
    "queue": TEXT,
    "message": {"description": "Any JSON value."},
    "name": {"type": "string", "default": ""},
    "headers": {"type": "object", "additionalProperties": TEXT},
    **_WHEN,
    "once": {"type": "boolean", "default": False, "description": "End after the first time."},
    "missed": {"enum": ["skip", "once", "all"], "default": "once"},
    "overlap": {"type": "boolean", "default": True},
    "annotations": {"type": "object", "additionalProperties": TEXT},
    "paused": {"type": "boolean", "default": False},
}
_SHOWN: dict[str, Schema] = {
    "id": TEXT,
    "room": TEXT,
    **_SPEC,
    "created_at": _NUMBER,
    "made_by": {"type": "string", "description": "The participant that made it; empty for an API key."},
    "key_id": {**_NULLABLE, "description": "The API key that made it, or that signed the token of the participant."},
    "next_at": _TIME,
    "last_at": _TIME,
    "last_message_id": _NULLABLE,
    "sent": _INTEGER,
    "error": _NULLABLE,
}
_RUN = obj(
    at=_NUMBER,
    outcome={"enum": ["sent", "missed", "overlap", "failed", "run-now"]},
    occurrence=_NUMBER,
    message_id=TEXT,
    sent=_INTEGER,
    left_out=_INTEGER,
    error=TEXT,
)
_SCHEDULE = obj(**_SHOWN)
_HOOK_SPEC: dict[str, Schema] = {
    "queue": TEXT,
    "verify": {"enum": [scheme.value for scheme in Scheme], "default": Scheme.STANDARD.value},
    "name": {"type": "string", "default": ""},
    "headers": {"type": "array", "items": TEXT, "description": "Names of headers that messages keep."},
}
_HOOK_SHOWN: dict[str, Schema] = {
    "id": TEXT,
    "room": TEXT,
    **_HOOK_SPEC,
    "created_at": _NUMBER,
    "made_by": {"type": "string", "description": "The participant that made it; empty for an API key."},
    "key_id": {**_NULLABLE, "description": "The API key that made it, or that signed the token of the participant."},
    "error": {**_NULLABLE, "description": "Why it takes nothing any more: the key with which it was made has ended."},
    "ready": {"type": "boolean", "description": "False: it has no secret and refuses everything."},
    "url": TEXT,
}
_HOOK = obj(**_HOOK_SHOWN)
_HOOK_MADE = obj(**_HOOK_SHOWN, secret=_NULLABLE)
_DELIVERY = obj(
    at=_NUMBER,
    outcome={"enum": ["stored", "refused", "failed", "challenge"]},
    bytes=_INTEGER,
    message_id=TEXT,
    delivery=_NULLABLE,
    error=TEXT,
)
_ROOM = "/rooms/{room}"


def _of_room(method: str, path: str, summary: str, answers: list[Answer], **more: Any) -> Endpoint:
    return Endpoint(
        method, path, summary, [*answers, _UNAUTHORIZED, _FORBIDDEN], auth="apiKey", tag="Starting work", **more
    )


TRIGGERS = (
    _of_room(
        "POST",
        f"{_ROOM}/queues/{{queue}}/messages",
        "Send to a queue",
        [
            Answer(200, "The ids of the messages, which are stored; one alone is `id`.", obj(id=TEXT, ids=array(TEXT))),
            Answer(400, "The body is wrong; the text names the message. None was stored.", ERROR),
            Answer(413, "The body or a message is too large, or there are too many. None was stored.", ERROR),
            Answer(429, "The queue is full, or a quota reached. None was stored.", ERROR),
        ],
        description="""Stores messages and wakes the room. One JSON value is one message; an array, or lines of JSON
        (`application/x-ndjson`), are up to 1,000, stored all or none. CloudEvents are taken in binary and structured
        mode and in batches: their data is the message, their attributes its headers `ce-…`, and one with the same source and
        id is stored once. With the header `Idempotency-Key` a request that is repeated stores each of its messages once (within
        a day). With an API key, or a participant token that may send to the queue. `traceparent`
        goes along.""",
        parameters=(
            Parameter("delay", "Seconds to wait before the messages are ready.", _NUMBER),
            Parameter("at", "When they are ready, in seconds since 1970; instead of `delay`.", _NUMBER),
            Parameter("priority", "-100 to 100; higher ones are delivered first.", {"type": "integer", "default": 0}),
            Parameter("key", "Messages of one key are delivered one at a time, in order.", TEXT),
            Parameter("ttl", "Seconds after which a message that nobody works on is dropped.", _NUMBER),
        ),
        body={"description": "Any JSON value."},
    ),
    _of_room(
        "GET",
        "/schedules",
        "List the schedules of all rooms",
        [Answer(200, "The schedules, the oldest first.", obj(schedules=array(_SCHEDULE))), _BAD],
        parameters=_PAGE,
    ),
    _of_room(
        "POST",
        "/schedules/preview",
        "Show when a schedule would send",
        [
            Answer(
                200, "The next ten times, in seconds since 1970; fewer when there are fewer.", obj(times=array(_NUMBER))
            ),
            _BAD,
        ],
        description="Takes what says when: `cron`, `every` or `at`, and `timezone`. Nothing is stored.",
        body=obj((), **_SPEC),
    ),
    _of_room(
        "POST",
        f"{_ROOM}/schedules",
        "Make a schedule",
        [Answer(200, "The schedule.", _SCHEDULE), _BAD, _TOO_MANY],
        description="""A message for a queue of the room at certain times: one of `cron`, `every` and `at`. A participant
        may do the same with its token, for queues that it may send to; it then sees and manages those that it made itself, at
        most 20.""",
        body=obj(("queue", "message"), **_SPEC),
    ),
    _of_room(
        "GET",
        f"{_ROOM}/schedules",
        "List the schedules of a room",
        [Answer(200, "The schedules, the oldest first.", obj(schedules=array(_SCHEDULE))), _BAD],
        parameters=_PAGE,
    ),
    _of_room(
        "GET",
        f"{_ROOM}/schedules/{{id}}",
        "Show a schedule and its last runs",
        [Answer(200, "The schedule.", obj(**_SHOWN, runs=array(_RUN))), _MISSING],
    ),
    _of_room(
        "PATCH",
        f"{_ROOM}/schedules/{{id}}",
        "Change, pause or resume a schedule",
        [Answer(200, "The schedule.", _SCHEDULE), _BAD, _MISSING],
        description="""Members that are not named stay. Another time replaces the one there was. With `paused`
        false, a schedule whose key has ended goes on with the key that asks.""",
        body=obj(**_SPEC),
    ),
    _of_room("DELETE", f"{_ROOM}/schedules/{{id}}", "Delete a schedule", [Answer(204, "Deleted."), _MISSING]),
    _of_room(
        "POST",
        f"{_ROOM}/schedules/{{id}}/run",
        "Send the message of a schedule now",
        [Answer(200, "The id of the message.", obj(id=TEXT)), _MISSING, _TOO_MANY],
    ),
    Endpoint(
        "POST",
        "/hooks/{id}",
        "Deliver to a hook",
        [
            Answer(200, "The id of the message, which is stored.", obj(id=TEXT)),
            Answer(400, "The body is not what its headers say.", ERROR),
            Answer(401, "The signature is wrong, missing or too old.", ERROR),
            Answer(404, "No such hook.", ERROR),
            Answer(413, "The body or the message is too large.", ERROR),
            Answer(
                429,
                "The address was refused too often, or the queue is full.",
                ERROR,
                headers={"Retry-After": "Seconds to wait."},
            ),
        ],
        description="""For foreign services, which sign as the hook says. A delivery becomes one message, and one that is
        repeated is stored once. Slack's question who is here is answered with its challenge, as text.""",
        parameters=(Parameter("id", "The id of the hook, which nobody can guess.", place="path"),),
        body={"description": "JSON, a form, text, a CloudEvent, or other bytes, which become base64."},
        is_body_required=False,
        tag="Starting work",
    ),
    _of_room(
        "POST",
        f"{_ROOM}/hooks",
        "Make a hook",
        [Answer(200, "The hook; `secret` is shown only here.", _HOOK_MADE), _BAD, _TOO_MANY],
        description="""An address that a foreign service posts to. The secret is made for `standard-webhooks` and `github`
        unless one is given; `stripe` and `slack` show theirs, which is given here.""",
        body=obj(("queue",), **_HOOK_SPEC, secret=_NULLABLE),
    ),
    _of_room(
        "GET",
        f"{_ROOM}/hooks",
        "List the hooks of a room",
        [Answer(200, "The hooks, the oldest first.", obj(hooks=array(_HOOK))), _BAD],
        parameters=_PAGE,
    ),
    _of_room(
        "GET",
        f"{_ROOM}/hooks/{{id}}",
        "Show a hook and its last deliveries",
        [Answer(200, "The hook.", obj(**_HOOK_SHOWN, deliveries=array(_DELIVERY))), _MISSING],
    ),
    _of_room("DELETE", f"{_ROOM}/hooks/{{id}}", "Delete a hook", [Answer(204, "Deleted."), _MISSING]),
    _of_room(
        "POST",
        f"{_ROOM}/hooks/{{id}}/secret",
        "Change the secret of a hook",
        [Answer(200, "The hook; `secret` is shown only here.", _HOOK_MADE), _BAD, _MISSING],
        description="A hook whose key has ended goes on with the key that asks.",
        body=obj(secret={**_NULLABLE, "description": "Null: a new one is made."}),
    ),
    _of_room(
        "POST",
        f"{_ROOM}/hooks/{{id}}/test",
        "Deliver a signed test message to a hook",
        [Answer(200, "The id of the message.", obj(id=TEXT)), _MISSING, _TOO_MANY],
    ),
)

_PROJECT = "/accounts/projects/{project}"
_TASK_SPEC = obj(("spec",), spec=_OBJECT)
_NO_TASK = Answer(404, "No such project or task.", ERROR)


def _of_tasks(method: str, path: str, summary: str, answers: list[Answer], **more: Any) -> Endpoint:
    answers = [*answers, _UNAUTHORIZED, _FORBIDDEN]
    return Endpoint(method, f"{_PROJECT}/{path}", summary, answers, auth="apiKey", tag="Projects", **more)


SCHEDULED_TASKS = (
    _of_tasks(
        "POST",
        "rooms/{name}/scheduled-tasks",
        "Make a scheduled task",
        [Answer(200, "Its id.", obj(task_id=TEXT)), _BAD, _NO_TASK, _TOO_MANY],
        description="""MeshAgent's form of a schedule: a cron line in UTC, or an interval such as `15 minutes`; at most every 15
        minutes, and only tasks that send an object to a queue.""",
        body=_TASK_SPEC,
    ),
    _of_tasks(
        "GET",
        "scheduled-tasks",
        "List scheduled tasks",
        [
            Answer(
                200,
                "The tasks: schedules that this form can hold.",
                obj(tasks=array(_OBJECT), total=_INTEGER, continuation_token=_NULLABLE),
            ),
            _BAD,
            _NO_TASK,
        ],
        parameters=(
            Parameter("room_id", "Only tasks of this room: its id or its name.", TEXT),
            Parameter("task_id", "Only this task.", TEXT),
            Parameter("active", "Only tasks that are active, or are not.", {"enum": ["true", "false"]}),
            Parameter("page_size", "Most tasks in the answer; at most 1000.", {"type": "integer", "default": 100}),
            Parameter("continuation_token", "From the answer before.", TEXT),
        ),
    ),
    _of_tasks(
        "PUT",
        "scheduled-tasks/{id}",
        "Change a scheduled task",
        [Answer(200, "Its id.", obj(task_id=TEXT)), _BAD, _NO_TASK],
        body=_TASK_SPEC,
    ),
    _of_tasks("DELETE", "scheduled-tasks/{id}", "Delete a scheduled task", [Answer(204, "Deleted."), _NO_TASK]),
    _of_tasks(
        "GET",
        "scheduled-tasks/{id}/runs",
        "Show the last runs of a scheduled task",
        [Answer(200, "The runs, the newest first.", obj(runs=array(_OBJECT), total=_INTEGER)), _NO_TASK],
        parameters=(
            Parameter("limit", "Most runs in the answer.", {"type": "integer", "default": 100}),
            Parameter("offset", "Runs to skip.", {"type": "integer", "default": 0}),
        ),
    ),
)

_MAILBOX_SPEC: dict[str, Schema] = {
    "room": TEXT,
    "queue": TEXT,
    "public": {"type": "boolean", "default": False, "description": "MeshAgent's; kept, and changes nothing."},
    "annotations": {"type": "object", "additionalProperties": TEXT},
}
_MAILBOX = obj(
    address=TEXT,
    **_MAILBOX_SPEC,
    created_at=_NUMBER,
    made_by=TEXT,
    key_id=_NULLABLE,
    error={**_NULLABLE, "description": "Why it takes no mail any more."},
)
_MAILBOX_LIST = obj(("mailboxes", "total"), mailboxes=array(_MAILBOX), total=_INTEGER, continuation_token=_NULLABLE)
_MAILBOX_PAGE = (
    *_PAGE,
    Parameter("page_size", "Instead of `limit` and `after`: most mailboxes of a page. `count` is the same.", _INTEGER),
    Parameter("continuation_token", "With `page_size`: the token of the page before. `offset` is the same.", TEXT),
    Parameter("filter", "With `page_size`: a part of the address.", TEXT),
)
_NO_MAILBOX = Answer(404, "No such project or mailbox.", ERROR)

MAILBOXES = (
    _of_tasks(
        "POST",
        "mailboxes",
        "Make a mailbox",
        [
            Answer(200, "The mailbox.", _MAILBOX),
            _BAD,
            _NO_MAILBOX,
            Answer(409, "The address is taken.", ERROR),
            _TOO_MANY,
        ],
        description="Mail for the address becomes messages of the queue, each with the mail in base64.",
        body=obj(("address", "room", "queue"), address=TEXT, **_MAILBOX_SPEC),
    ),
    _of_tasks(
        "GET",
        "mailboxes",
        "List mailboxes",
        [Answer(200, "The mailboxes, by address.", _MAILBOX_LIST), _BAD, _NO_MAILBOX],
        parameters=(Parameter("room_id", "Only those of this room: its id or its name.", TEXT), *_MAILBOX_PAGE),
    ),
    _of_tasks(
        "GET",
        "rooms/{name}/mailboxes",
        "List the mailboxes of a room",
        [Answer(200, "The mailboxes, by address.", _MAILBOX_LIST), _BAD, _NO_MAILBOX],
        parameters=_MAILBOX_PAGE,
    ),
    _of_tasks("GET", "mailboxes/{address}", "Show a mailbox", [Answer(200, "The mailbox.", _MAILBOX), _NO_MAILBOX]),
    _of_tasks(
        "PUT",
        "mailboxes/{address}",
        "Change the room or queue of a mailbox",
        [Answer(200, "The mailbox.", _MAILBOX), _BAD, _NO_MAILBOX],
        body=obj(("room", "queue"), **_MAILBOX_SPEC),
    ),
    _of_tasks("DELETE", "mailboxes/{address}", "Delete a mailbox", [Answer(204, "Deleted."), _NO_MAILBOX]),
    _of_tasks(
        "GET",
        "mailboxes/{address}/deliveries",
        "Show the last mails of a mailbox",
        [
            Answer(
                200,
                "What happened to the last 20, the newest first; without contents.",
                obj(
                    deliveries=array(
                        obj(
                            ("at", "outcome", "bytes", "from"),
                            at=_NUMBER,
                            outcome={"enum": ["stored", "failed"]},
                            bytes=_INTEGER,
                            message_id=TEXT,
                            error=TEXT,
                            **{"from": TEXT},
                        )
                    )
                ),
            ),
            _NO_MAILBOX,
        ],
    ),
)
