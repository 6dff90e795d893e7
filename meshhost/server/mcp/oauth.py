"""How an MCP client gets a token by itself (OAuth 2.1 as MCP uses it), where this server has a login.

The only authorization server that we have is the loopback login (`http/login.py`), for the user of the machine that the server
runs on; behind a public URL it is off, and clients use a participant token or an API key. Where it is on, a request without a
token is answered with the address of the room's metadata (RFC 9728); they name this server as authorization server, whose own
metadata (RFC 8414) name the login's addresses. A client registers itself (RFC 7591), which keeps nothing: clients are public,
prove themselves by PKCE, and may be sent back to an address of this machine only. The token that a client gets when it names
the room's address as `resource` (RFC 8707) is good for this address only.

Not claimed: scopes, refresh tokens, client metadata documents, other authorization servers.
"""

import secrets
from urllib.parse import quote, unquote

from aiohttp import web

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import check_room_name
from meshhost.server.address import Address
from meshhost.server.http.bodies import json_object
from meshhost.server.http.login import loopback_redirect

__all__ = ["OAuthRoutes", "mcp_url", "resource_metadata_url", "room_of_resource"]

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_MOST_REDIRECTS = 10


def mcp_url(own_url: str, room: str) -> str:
    """The address of a room's MCP server."""
    return f"{own_url}/rooms/{quote(room, safe='')}/mcp"


def resource_metadata_url(own_url: str, request: web.Request) -> str:
    """Where the metadata of the room that a request is about are."""
    return f"{own_url}{_WELL_KNOWN}/rooms/{quote(request.match_info['room'], safe='')}/mcp"


def room_of_resource(own_url: str, resource: str) -> str:
    """The room whose MCP server has this address. Raises InvalidRequestError."""
    prefix = f"{own_url}/rooms/"
    name, slash, rest = resource.removeprefix(prefix).partition("/")
    if not resource.startswith(prefix) or (slash, rest) != ("/", "mcp"):
        raise InvalidRequestError("resource", "expected the address of MCP of a room of this server")
    return check_room_name(unquote(name))


class OAuthRoutes:
    """Serves the metadata, and registers clients. Added only where the login is."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.add_routes(
            [
                web.get(f"{_WELL_KNOWN}/rooms/{{room}}/mcp", self._resource),
                web.get("/.well-known/oauth-authorization-server", self._server),
                web.post("/oauth/register", self._register),
            ]
        )

    async def _resource(self, request: web.Request) -> web.Response:
        room = check_room_name(request.match_info["room"])
        own_url = self._address.url
        return web.json_response(
            {
                "resource": mcp_url(own_url, room),
                "resource_name": f"room {room}",
                "authorization_servers": [own_url],
                "bearer_methods_supported": ["header"],
            }
        )

    async def _server(self, request: web.Request) -> web.Response:
        own_url = self._address.url
        return web.json_response(
            {
                "issuer": own_url,
                "authorization_endpoint": f"{own_url}/oauth/authorize",
                "token_endpoint": f"{own_url}/oauth/token",
                "registration_endpoint": f"{own_url}/oauth/register",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _register(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise InvalidRequestError("Content-Type", "expected application/json")
        body = await json_object(request)
        redirects = body.get("redirect_uris")
        if not isinstance(redirects, list) or not 0 < len(redirects) <= _MOST_REDIRECTS:
            raise InvalidRequestError("redirect_uris", f"expected 1 to {_MOST_REDIRECTS} addresses of this machine")
        for each in redirects:
            if not isinstance(each, str):
                raise InvalidRequestError("redirect_uris", "expected texts")
            loopback_redirect(each)
        answer = {
            "client_id": secrets.token_urlsafe(16),
            "redirect_uris": redirects,
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        return web.json_response(answer, status=201, headers={"Cache-Control": "no-store"})
