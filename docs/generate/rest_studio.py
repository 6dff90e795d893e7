"""The endpoints of a room server for Studio; part of `rest_room_server`."""

from docs.generate.openapi import ERROR, TEXT, Answer, Endpoint, Parameter, Schema, obj

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
    sign_in={"type": "array", "items": {"enum": ["key", "code", "oidc"]}},
    oidc={"type": ["object", "null"], "properties": {"name": TEXT}},
    version=TEXT,
    ended={"type": "string", "description": "Why the session of the cookie has ended."},
)
_PAGE = Answer(200, "The page.", media="text/html")

STUDIO = (
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
