"""The REST reference: one OpenAPI 3.1 document for the room server, one for the service host, and a page about both.

The tables of endpoints are compared with the routes that running servers serve: a route without an entry, or an entry
without a route, raises `KeyError`.
"""

import json
from collections.abc import Mapping, Sequence

from docs.generate import rest_room_server, rest_service_host
from docs.generate.markdown import code, page, table
from docs.generate.openapi import Endpoint, document
from docs.generate.served import Server

__all__ = ["check_routes", "documents", "pages"]

_INTRO = """
The room server and the service host answer JSON. An error is `{"error": "…"}` with a text that says what is wrong; the LLM
gateway's errors have the form of the OpenAI API. Two OpenAPI 3.1 documents describe every route:
[openapi.json](openapi.json) for the room server, [openapi-service-host.json](openapi-service-host.json) for a service host.

What is inside a room (messages between participants, files, documents, tools, receiving from queues) goes over the WebSocket of
`GET /rooms/{room}`: use [`RoomClient`](api/client.md) or a MeshAgent SDK. Sending to queues and looking after them, schedules
and hooks have routes here too, for programs that join no room.

While the room server cannot use its database, any route may answer 503 with `Retry-After`, or 507 when the disk is full.
Whether the request was done is then unknown; a send with an `Idempotency-Key` is safe to repeat.
"""


def documents() -> dict[str, dict[str, object]]:
    """The OpenAPI documents by file name."""
    room_server = document(
        "meshhost room server",
        "Projects, rooms, their queues, schedules and hooks, and the LLM gateway. The rest of a room goes over its WebSocket.",
        rest_room_server.ENDPOINTS,
        server="http://127.0.0.1:8080",
        security=rest_room_server.SECURITY,
    )
    service_host = document(
        "meshhost service host",
        "Calls of agents into rooms, health, and what the operator of a host may do.",
        rest_service_host.ENDPOINTS,
        server="http://127.0.0.1:8081",
        security=rest_service_host.SECURITY,
    )
    return {"openapi.json": room_server, "openapi-service-host.json": service_host}


def check_routes(name: str, endpoints: Sequence[Endpoint], server: Server) -> None:
    """Raises KeyError when the table and the routes of the running server differ."""
    served, described = set(server.routes), {(endpoint.method, endpoint.path) for endpoint in endpoints}
    if missing := served - described:
        raise KeyError(f"{name}: routes without an entry in its table: {sorted(missing)}")
    if extra := described - served:
        raise KeyError(f"{name}: entries without a route: {sorted(extra)}")


def pages(served: Mapping[str, Server]) -> dict[str, str]:
    """The page and the documents."""
    check_routes("docs/generate/rest_room_server.py", rest_room_server.ENDPOINTS, served["room-server"])
    check_routes("docs/generate/rest_service_host.py", rest_service_host.ENDPOINTS, served["service-host"])
    parts = [_INTRO]
    for title, module in (("Room server", rest_room_server), ("Service host", rest_service_host)):
        parts += [f"## {title}", table(("Request", "What it does", "Answers"), map(_row, module.ENDPOINTS))]
    texts = {f"reference/{name}": json.dumps(made, indent=2) + "\n" for name, made in documents().items()}
    return {"reference/rest.md": page("REST", *parts), **texts}


def _row(endpoint: Endpoint) -> tuple[str, str, str]:
    method = "any" if endpoint.method == "*" else endpoint.method
    answers = ", ".join(str(answer.status) for answer in endpoint.answers)
    return code(f"{method} {endpoint.shown_path}"), endpoint.summary, answers
