import asyncio
import ipaddress

import pytest
from aiohttp import web

from meshhost.errors import InvalidRequestError, LimitExceededError, RequestTimeoutError, ToolError
from meshhost.tools.fetch import fetch

HOME = ipaddress.ip_address("127.0.0.1")


@pytest.fixture
async def site(aiohttp_server):
    release = asyncio.Event()

    async def answer(request):
        match request.match_info["what"]:
            case "file":
                return web.Response(body=b"x" * 100, content_type="text/plain")
            case "chunks":
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(3):
                    await response.write(b"x" * 50)
                return response
            case "hang":
                await release.wait()
            case "loop":
                raise web.HTTPFound("/loop")
            case "moved":
                raise web.HTTPFound("/file")
            case "inside":
                raise web.HTTPFound(f"http://127.0.0.2:{request.url.port}/file")
            case "scheme":
                raise web.HTTPFound("file:///etc/passwd")
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/{what}", answer)
    server = await aiohttp_server(app, host="127.0.0.1")
    yield server
    release.set()


@pytest.fixture
def get(site):
    async def get(what, *, limit=1000, timeout=10.0):
        return await fetch(str(site.make_url(what)), limit=limit, timeout=timeout, is_allowed=lambda a: a == HOME)

    return get


async def test_a_file_arrives_with_its_type(get):
    file = await get("/file")
    assert (len(file.data), file.mime_type) == (100, "text/plain")


async def test_redirects_are_followed_within_reason(get):
    assert len((await get("/moved")).data) == 100
    with pytest.raises(ToolError, match="redirects more than 5 times"):
        await get("/loop")


@pytest.mark.parametrize("what", ["/inside", "/scheme"])
async def test_a_redirect_to_a_forbidden_place_is_refused(get, what):
    with pytest.raises(InvalidRequestError):
        await get(what)


@pytest.mark.parametrize("what", ["/file", "/chunks"])
async def test_a_file_over_the_limit_is_refused(get, what):
    with pytest.raises(LimitExceededError, match="larger than 99 bytes"):
        await get(what, limit=99)


async def test_a_slow_file_is_given_up(get):
    with pytest.raises(RequestTimeoutError):
        await get("/hang", timeout=0.1)


async def test_an_error_of_the_other_side_is_told(get):
    with pytest.raises(ToolError, match="status 404"):
        await get("/nothing")


async def test_a_connection_that_fails_is_told(unused_tcp_port):
    with pytest.raises(ToolError, match="could not be fetched"):
        await fetch(f"http://127.0.0.1:{unused_tcp_port}/", limit=1, timeout=5, is_allowed=lambda a: True)
