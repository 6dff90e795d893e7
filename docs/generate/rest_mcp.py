"""The endpoints of a room server for MCP and for how its clients get tokens; part of `rest_room_server`."""

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, array, obj

__all__ = ["MCP"]

_PATH = "/rooms/{room}/mcp"
_TOOLKIT = Parameter("toolkit", "Offer only this toolkit, its tools under their own names.", TEXT)
_SESSION = Parameter("Mcp-Session-Id", "The id of the session, from `initialize`.", TEXT, place="header")
_REFUSED = (
    Answer(
        401, "The key or token is missing, wrong, revoked or expired; `WWW-Authenticate` says how to get one.", ERROR
    ),
    Answer(403, "The role or the grant does not allow it, or a page of another server asks.", ERROR),
)
_MESSAGE: Schema = obj(
    ("jsonrpc", "method"),
    jsonrpc={"const": "2.0"},
    id={"type": ["string", "integer"]},
    method=TEXT,
    params={"type": "object"},
)
_TEXTS = array(TEXT)
_ON_THIS_MACHINE = "Only where the login of this machine is on."

MCP = (
    Endpoint(
        "POST",
        _PATH,
        "Use a room's tools and agents over MCP",
        [
            Answer(200, "A JSON-RPC message, or a stream of them (`text/event-stream`).", {"type": "object"}),
            Answer(202, "A notification was taken, or the request was cancelled by its client."),
            Answer(
                400,
                "The message or its headers are wrong; for one that was read, a JSON-RPC error.",
                {"type": "object"},
            ),
            *_REFUSED,
            Answer(404, "The session is over; or, without sessions, the method is not offered.", {"type": "object"}),
            Answer(413, "The body is too large.", ERROR),
            Answer(429, "A quota is reached.", ERROR),
        ],
        description="""Protocol 2025-03-26 to 2025-11-25 with sessions or without, 2026-07-28 without. `initialize`, `ping`,
        `server/discover`, `tools/list`, `tools/call` with progress and cancellation, `subscriptions/listen`. With an API key of
        the role developer, a participant token whose grant `agents` allows tools or agents, or a token of the login for this
        address.""",
        parameters=(_TOOLKIT, _SESSION),
        body=_MESSAGE,
        auth="participantToken",
        tag="MCP",
    ),
    Endpoint(
        "GET",
        _PATH,
        "Receive the changes of a session's tools",
        [
            Answer(200, "A stream of `notifications/tools/list_changed`.", media="text/event-stream"),
            *_REFUSED,
            Answer(404, "The session is over.", ERROR),
            Answer(405, "The request names no session.", ERROR),
        ],
        parameters=(_SESSION,),
        auth="participantToken",
        tag="MCP",
    ),
    Endpoint(
        "DELETE",
        _PATH,
        "End a session",
        [
            Answer(204, "It is over."),
            *_REFUSED,
            Answer(404, "The session was over already.", ERROR),
            Answer(405, "The request names no session.", ERROR),
        ],
        parameters=(_SESSION,),
        auth="participantToken",
        tag="MCP",
    ),
    Endpoint(
        "GET",
        f"/.well-known/oauth-protected-resource{_PATH}",
        "Say where tokens for MCP of a room come from (RFC 9728)",
        [
            Answer(
                200,
                "The authorization server.",
                obj(
                    ("resource", "authorization_servers"),
                    resource=TEXT,
                    resource_name=TEXT,
                    authorization_servers=_TEXTS,
                    bearer_methods_supported=_TEXTS,
                ),
            )
        ],
        description=_ON_THIS_MACHINE,
        tag="MCP",
    ),
    Endpoint(
        "GET",
        "/.well-known/oauth-authorization-server",
        "Describe the login as an authorization server (RFC 8414)",
        [Answer(200, "Its addresses and what it takes.", {"type": "object"})],
        description=_ON_THIS_MACHINE,
        tag="Login",
    ),
    Endpoint(
        "POST",
        "/oauth/register",
        "Register a client of the login (RFC 7591)",
        [
            Answer(
                201,
                "Its id. Nothing of it is kept.",
                obj(("client_id", "redirect_uris"), client_id=TEXT, redirect_uris=_TEXTS),
            ),
            Answer(400, "An address to return to is not of this machine.", ERROR),
        ],
        description=_ON_THIS_MACHINE,
        body=obj(("redirect_uris",), redirect_uris=_TEXTS),
        tag="Login",
    ),
)
