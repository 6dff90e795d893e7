"""OAuth with MCP servers: a login by a person once, and the tokens from then on.

`login` is for a person at a browser (`meshhost mcp login`): it asks the server where its tokens come from, registers, opens the
page and takes the answer on a port of this machine. What it gets is kept in `ServerTokens`. An agent has nobody to ask, so
`token_auth` uses and renews what is stored, and fails with what to do when that is not enough. The library does the protocol:
discovery, PKCE, issuer and resource checks, renewal.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
from aiohttp import web
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, OAuthFlowError
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from meshhost.errors import ToolError
from meshhost.mcp.tokens import ServerTokens

__all__ = ["login", "token_auth"]

LOGIN_SECONDS = 300.0
_PAGE = "<!doctype html><title>meshhost</title><p>{}"


def token_auth(url: str, tokens: ServerTokens, *, scope: str | None = None) -> httpx2.Auth:
    """What adds the stored token to requests for the server at this address, and renews it.

    A request for which the stored token is not enough raises OAuthFlowError, which a toolkit reports as a ToolError.
    """

    async def nobody(_: str) -> None:
        raise OAuthFlowError(f"nobody is logged in there for this tenant: meshhost mcp login {url}")

    async def nothing() -> AuthorizationCodeResult:
        raise OAuthFlowError("nobody is logged in")

    return OAuthClientProvider(url, _metadata("http://127.0.0.1/callback", scope), tokens, nobody, nothing)


async def login(
    url: str,
    tokens: ServerTokens,
    *,
    show: Callable[[str], Awaitable[None]],
    scope: str | None = None,
    seconds: float = LOGIN_SECONDS,
) -> None:
    """Log a person in: `show` is called with the address of the page to open. Stores the tokens.

    Raises ToolError when the server asks for no login, or when none ends within `seconds`.
    """
    fresh = _Fresh()
    try:
        async with asyncio.timeout(seconds), _listening() as (redirect, answer):

            async def wait() -> AuthorizationCodeResult:
                return await answer

            auth = OAuthClientProvider(url, _metadata(redirect, scope), fresh, show, wait)
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            headers = {"Accept": "application/json, text/event-stream"}
            async with (
                httpx2.AsyncClient(auth=auth, timeout=seconds) as http,
                http.stream("POST", url, json=ping, headers=headers),
            ):
                pass
    except TimeoutError:
        raise ToolError(f"nobody logged in within {seconds:g} s") from None
    except (OAuthFlowError, httpx2.HTTPError) as error:
        raise ToolError(f"the login failed: {error}") from None
    if fresh.tokens is None:
        raise ToolError(f"{url} asks for no login")
    await tokens.replace(fresh.tokens, fresh.client)


class _Fresh:
    """What a login has got so far. What is stored stays until it is complete: a login that fails must not log anybody out."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def _metadata(redirect: str, scope: str | None) -> OAuthClientMetadata:
    values = {"client_name": "meshhost", "redirect_uris": [redirect], "scope": scope}
    # A program on a user's machine keeps no secret of its own.
    return OAuthClientMetadata.model_validate({**values, "token_endpoint_auth_method": "none"})


@asynccontextmanager
async def _listening() -> AsyncIterator[tuple[str, asyncio.Future[AuthorizationCodeResult]]]:
    """An address on this machine that a browser is sent to, and what it brings."""
    answer: asyncio.Future[AuthorizationCodeResult] = asyncio.get_running_loop().create_future()
    # Hard to guess, so that no other page on this machine's browser can answer; the library also checks `state`.
    path = f"/{secrets.token_urlsafe(16)}"

    async def take(request: web.Request) -> web.Response:
        query = request.query
        is_given = "code" in query
        if not answer.done():
            if is_given:
                answer.set_result(
                    AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))
                )
            else:
                answer.set_exception(OAuthFlowError(f"the page refused: {query.get('error', 'no reason given')[:200]}"))
        told = (
            "Go on in the terminal: you can close this page."
            if is_given
            else "You are not logged in: the server refused."
        )
        return web.Response(text=_PAGE.format(told), content_type="text/html")

    app = web.Application()
    app.add_routes([web.get(path, take)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{path}", answer
    finally:
        answer.cancel()
        await runner.cleanup()
