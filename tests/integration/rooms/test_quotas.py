"""Quotas of tenants on a real room server: over a limit a clear refusal, and a neighbour that notices nothing."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doubles.mcp_client import McpWire
from doubles.newer_client import newer_client

from meshhost.agents.schemas.document import document_schema
from meshhost.app.config_file import ServerFile
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.errors import ConnectionLostError, NotFoundError, QuotaExceededError, RoomRefusedError
from meshhost.gateway.provider import ProviderTable
from meshhost.identity.keys import new_api_key
from meshhost.protocol import contents
from meshhost.quotas.quota import Resource
from meshhost.room.client import RoomClient
from meshhost.server.server import RoomServer
from meshhost.testing.server import RunningServer

OPERATOR_KEY = "mo-0123456789abcdef"
ACME, RIVAL = (new_api_key(f"{digit * 8}-2222-3333-4444-555555555555") for digit in "ab")


class Tenants:
    """Two tenants on one server, and its operator."""

    def __init__(self, server: RoomServer, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http
        self.acme, self.rival = RunningServer(server, ACME), RunningServer(server, RIVAL)

    async def ask(self, bearer: str, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.http.request(method, self.server.url + path, headers=headers, json=body) as response:
            return response.status, await response.json(content_type=None), response.headers

    async def limit(self, **limits: Any) -> Any:
        status, shown, _ = await self.ask(OPERATOR_KEY, "PATCH", f"/tenants/{ACME.project_id}/quota", limits)
        assert status == 200, shown
        return shown

    async def use(self, tenant: str = ACME.project_id) -> Any:
        status, shown, _ = await self.ask(OPERATOR_KEY, "GET", f"/tenants/{tenant}")
        assert status == 200, shown
        return shown["use"]

    async def until(self, **use: int) -> None:
        """Wait until the server has noticed the end of a connection."""
        async with asyncio.timeout(5):
            while True:
                if use.items() <= (await self.use()).items():
                    return
                await asyncio.sleep(0.01)


Served = Callable[..., AbstractAsyncContextManager[Tenants]]


@pytest.fixture
def served(tmp_path: Path, http: aiohttp.ClientSession) -> Served:
    """Start a server over the same directory each time; keyword arguments are those of `[quota]`, and `server`."""

    @asynccontextmanager
    async def serve(*, server: Any = None, **quota: Any) -> AsyncIterator[Tenants]:
        options = ServerOptions(
            port=0,
            data_dir=tmp_path,
            file=ServerFile.model_validate({"server": server or {}, "quota": quota}),
            providers=ProviderTable({}),
            extra_keys=lambda: [ACME, RIVAL],
            operator_key=OPERATOR_KEY,
        )
        async with open_room_server(options) as running:
            yield Tenants(running, http)

    return serve


@pytest.fixture
async def tenants(served: Served, stack: AsyncExitStack) -> Tenants:
    return await stack.enter_async_context(served())


async def refused(joining: RoomClient) -> str:
    """The text with which the server refuses this client with 429."""
    with pytest.raises(RoomRefusedError) as caught:
        async with joining:
            raise AssertionError("not reached")
    assert caught.value.status == 429
    return str(caught.value)


async def accepted(requests: list[Awaitable[Any]]) -> int:
    """How many were not refused for a quota; nothing else may fail."""
    results = await asyncio.gather(*requests, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, QuotaExceededError) for error in errors), errors
    return len(results) - len(errors)


async def test_connections_agents_and_rooms_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    acme, rival = tenants.acme, tenants.rival
    await tenants.limit(max_connections=3, max_agents=1, max_rooms=1)
    agent = await stack.enter_async_context(acme.client(name="agent", role="agent"))
    user = acme.client(name="user")
    async with user:
        assert "quota max_agents: 1 agents may be connected" in await refused(acme.client(role="agent"))
        assert "quota max_rooms: 1 rooms may be open" in await refused(acme.client("elsewhere"))
        await stack.enter_async_context(acme.client(name="third"))
        assert "quota max_connections: 3 connections may be open" in await refused(acme.client())
        for number in range(5):
            await stack.enter_async_context(rival.client(f"room-{number}", role="agent"))
        used = await tenants.use()
        assert (used["connections"], used["agents"], used["rooms"]) == (3, 1, 1)
    await tenants.until(connections=2)
    async with acme.client(name="again"):
        await agent.queues.send(name="q", message={})


async def test_a_refusal_says_when_to_try_again(tenants: Tenants) -> None:
    await tenants.limit(max_connections=0)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers |= {
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Authorization": f"Bearer {tenants.acme.token('room')}",
    }
    async with tenants.http.get(f"{tenants.server.url}/rooms/room", headers=headers) as response:
        body = await response.json()
        assert (response.status, response.headers["Retry-After"]) == (429, "5")
        assert (body["quota"], body["code"]) == ("max_connections", 5006)


async def test_mcp_requests_count_as_connections_and_requests(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(max_connections=1)
    acme = McpWire(tenants.http, f"{tenants.server.url}/rooms/room/mcp", tenants.acme.token("room"))
    rival = McpWire(tenants.http, f"{tenants.server.url}/rooms/room/mcp", tenants.rival.token("room"))
    listen = acme.stateless("subscriptions/listen", {"notifications": {}})
    async with acme.sending(*listen) as stream:
        await stream.content.readline()
        status, refused = await acme.post(*acme.stateless("tools/list"))
        assert (status, refused["quota"]) == (429, "max_connections")
        assert await rival.names() == []
    await tenants.until(connections=0)
    assert await acme.names() == []
    await tenants.limit(requests_per_second=1)
    statuses = [(await acme.post(*acme.stateless("tools/list")))[0] for _ in range(20)]
    assert 429 in statuses


async def test_an_agent_that_resumes_takes_its_own_place(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(max_agents=1)
    agent = await stack.enter_async_context(tenants.acme.client(name="agent", role="agent"))
    for _ in range(3):
        tenants.acme.cut(agent)
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(ConnectionLostError):
                    await agent.queues.send(name="q", message={})
                    break
                await asyncio.sleep(0.01)
    assert (await tenants.use())["agents"] == 1


async def test_messages_and_queues_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(max_messages=10, max_queues=2)
    acme = await stack.enter_async_context(tenants.acme.client())
    rival = await stack.enter_async_context(tenants.rival.client())
    sent = await accepted([acme.queues.send(name="q", message={"n": n}) for n in range(40)])
    assert sent == 10
    with pytest.raises(QuotaExceededError, match="quota max_messages: 10 messages"):
        await acme.queues.send(name="q", message={})
    assert await accepted([rival.queues.send(name="q", message={}) for _ in range(40)]) == 40
    leased = await acme.queues.lease(name="q")
    assert leased is not None
    await leased.ack()
    assert await accepted([acme.queues.send(name="q", message={}) for _ in range(2)]) == 1
    await acme.queues.open(name="second")
    for opening in (acme.queues.open(name="third"), acme.queues.receive(name="third", wait=False)):
        with pytest.raises(QuotaExceededError, match="quota max_queues: 2 queues may exist"):
            await opening
    used = await tenants.use()
    assert (used["messages"], used["queues"]) == (10, 2)
    await acme.queues.close(name="q")
    await acme.queues.open(name="third")
    assert await accepted([acme.queues.send(name="third", message={"n": n}) for n in range(20)]) == 10


async def test_the_deletion_of_a_room_or_tenant_makes_the_counts_right(tenants: Tenants) -> None:
    await tenants.limit(max_queues=1, max_messages=1, max_files=1, max_documents=1)
    schema = json.dumps(document_schema.to_json()).encode()
    for _ in range(2):
        async with tenants.acme.client() as room:
            await room.queues.send(name="q", message={})
            await room.storage.upload(path=".schemas/page.json", data=schema)
            await room.sync.create(path="a.page")
            for over in (
                room.queues.send(name="q", message={}),
                room.storage.upload(path="file", data=b""),
                room.sync.create(path="b.page"),
            ):
                with pytest.raises(QuotaExceededError):
                    await over
        status, answer, _ = await tenants.ask(OPERATOR_KEY, "DELETE", f"/tenants/{ACME.project_id}/rooms/room")
        assert (status, answer["deleted"]) == (200, True)
        kept = {"queues": 0, "messages": 0, "files": 0, "stored_bytes": 0, "documents": 0}
        assert (await tenants.use()).items() >= kept.items()
    counts = tenants.server.engines.counts
    assert counts.known()[ACME.project_id].keys() >= {Resource.MESSAGES, Resource.FILES}
    status, answer, _ = await tenants.ask(OPERATOR_KEY, "DELETE", f"/tenants/{ACME.project_id}")
    assert (status, answer["deleted"]) == (200, True)
    assert counts.known().get(ACME.project_id, {}).keys().isdisjoint({Resource.MESSAGES, Resource.FILES})


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({"max_messages": 5}, "max_messages"),
        ({"max_queues": 1}, "max_queues"),
        ({"max_stored_bytes": 5}, "max_stored_bytes"),
        ({"max_files": 1}, "max_files"),
    ],
)
async def test_a_tenant_cannot_pass_its_limits_by_importing_rooms(
    tenants: Tenants, limits: dict[str, int], quota: str
) -> None:
    rooms = f"{tenants.server.url}/tenants/{ACME.project_id}/rooms"
    headers = {"Authorization": f"Bearer {tenants.acme.api_key}"}
    async with tenants.acme.client() as user:
        for number in range(3):
            await user.queues.send(name="jobs", message=number)
        await user.storage.upload(path="a.txt", data=b"abc")
    async with tenants.http.get(f"{rooms}/room/archive", headers=headers) as response:
        archive = await response.read()
    await tenants.limit(**limits)

    async with tenants.http.put(f"{rooms}/copy/archive", headers=headers, data=archive) as response:
        status, answer = response.status, await response.json()

    assert (status, answer["quota"]) == (429, quota)
    use = await tenants.use()
    assert (use["messages"], use["queues"], use["files"], use["stored_bytes"]) == (3, 1, 1, 3)
    await tenants.limit(**dict.fromkeys(limits, 6))
    async with tenants.http.put(f"{rooms}/copy/archive", headers=headers, data=archive) as response:
        assert response.status == 200
    use = await tenants.use()
    assert (use["messages"], use["queues"], use["files"], use["stored_bytes"]) == (6, 2, 2, 6)
    if quota == "max_messages":
        async with tenants.acme.client() as user:
            with pytest.raises(QuotaExceededError):
                await user.queues.send(name="jobs", message=4)


async def test_counts_are_right_again_after_a_restart(served: Served) -> None:
    async with served() as tenants, tenants.acme.client() as room:
        await room.storage.upload(path=".schemas/page.json", data=b"{}")
        for n in range(7):
            await room.queues.send(name=f"q{n % 2}", message={})
    async with served(max_messages=10, max_files=2) as tenants, tenants.acme.client() as room:
        assert await accepted([room.queues.send(name="q0", message={}) for _ in range(20)]) == 3
        assert await accepted([room.storage.upload(path=f"f{n}", data=b"x") for n in range(5)]) == 1
        used = await tenants.use()
        assert (used["messages"], used["queues"], used["files"], used["stored_bytes"]) == (10, 2, 2, 3)


async def test_files_and_bytes_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(max_files=3, max_stored_bytes=1000)
    acme = await stack.enter_async_context(tenants.acme.client())
    rival = await stack.enter_async_context(tenants.rival.client())
    await acme.storage.upload(path="a", data=b"x" * 600)
    with pytest.raises(QuotaExceededError, match="quota max_stored_bytes: 1000 bytes"):
        await acme.storage.upload(path="b", data=b"x" * 600)
    await acme.storage.upload(path="a", data=b"x" * 300, overwrite=True)
    await acme.storage.upload(path="b", data=b"x" * 600)
    await acme.storage.upload(path="c", data=b"")
    with pytest.raises(QuotaExceededError, match="quota max_files: 3 files"):
        await acme.storage.upload(path="d", data=b"")
    await rival.storage.upload(path="a", data=b"x" * 5000)
    used = await tenants.use()
    assert (used["files"], used["stored_bytes"], used["uploads"]) == (3, 900, 0)
    await acme.storage.delete("b")
    await acme.storage.upload(path="d", data=b"x" * 700)
    assert (await tenants.use())["stored_bytes"] == 1000


async def test_unfinished_uploads_are_bounded_and_end_with_their_connection(
    tenants: Tenants, stack: AsyncExitStack
) -> None:
    await tenants.limit(max_uploads=2, max_stored_bytes=1000)
    async with tenants.acme.client() as acme:
        handles = [await acme.storage.open(path=f"f{n}") for n in range(2)]
        with pytest.raises(QuotaExceededError, match="quota max_uploads: 2 uploads"):
            await acme.storage.open(path="f3")
        await acme.storage.write(handle=handles[0], data=b"x" * 800)
        with pytest.raises(QuotaExceededError, match="max_stored_bytes"):
            await acme.storage.write(handle=handles[1], data=b"x" * 300)
        with pytest.raises(NotFoundError):
            await acme.storage.write(handle=handles[1], data=b"x")
        used = await tenants.use()
        assert (used["uploads"], used["stored_bytes"]) == (1, 800)
    await tenants.until(uploads=0)
    assert (await tenants.use())["stored_bytes"] == 0


async def test_documents_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(max_documents=1)
    clients = [await stack.enter_async_context(each.client()) for each in (tenants.acme, tenants.rival)]
    for client in clients:
        await client.storage.upload(path=".schemas/page.json", data=json.dumps(document_schema.to_json()).encode())
    acme, rival = clients
    await acme.sync.create(path="a.page")
    with pytest.raises(QuotaExceededError, match="quota max_documents: 1 documents"):
        await acme.sync.create(path="b.page")
    with pytest.raises(QuotaExceededError, match="quota max_documents"):
        await acme.sync.open(path="b.page")
    for path in ("a.page", "b.page"):
        await rival.sync.create(path=path)
    assert (await tenants.use())["documents"] == 1
    await acme.storage.delete("a.page")
    await acme.sync.create(path="b.page")


async def test_requests_per_second_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    acme = await stack.enter_async_context(tenants.acme.client())
    rival = await stack.enter_async_context(tenants.rival.client())
    await acme.queues.send(name="q", message={})
    leased = await acme.queues.lease(name="q")
    assert leased is not None
    await tenants.limit(requests_per_second=10)
    assert 10 <= await accepted([acme.queues.list() for _ in range(30)]) < 25
    with pytest.raises(QuotaExceededError, match="quota requests_per_second: 10 requests per second; try again in"):
        await asyncio.gather(*(acme.queues.list() for _ in range(5)))
    await leased.ack()  # settling is never refused
    path = f"/accounts/projects/{ACME.project_id}/rooms"
    answers = [await tenants.ask(tenants.acme.api_key, "GET", path) for _ in range(20)]
    status, body, headers = answers[-1]
    assert (status, body["quota"], headers["Retry-After"]) == (429, "requests_per_second", "1")
    assert await accepted([rival.queues.list() for _ in range(200)]) == 200
    await tenants.limit(requests_per_second=None)
    assert await accepted([acme.queues.list() for _ in range(100)]) == 100


async def test_new_connections_per_second_of_a_tenant_are_bounded(tenants: Tenants, stack: AsyncExitStack) -> None:
    await tenants.limit(connections_per_second=1)
    room = await stack.enter_async_context(tenants.acme.client())
    for _ in range(9):
        async with tenants.acme.client():
            pass
    url = f"{tenants.acme.url}/rooms/room"
    headers = {"Authorization": f"Bearer {tenants.acme.token('room')}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def join() -> None:
            for _ in range(5):  # the burst of ten may have grown meanwhile
                async with http.ws_connect(url):
                    pass

        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await join()
    answer = refused.value
    assert answer.headers is not None
    assert (answer.status, answer.headers["Retry-After"], answer.headers["Connection"]) == (429, "1", "close")
    async with tenants.rival.client():
        pass
    await room.queues.send(name="q", message={})  # who is connected notices nothing


async def test_keys_of_a_tenant_are_bounded(tenants: Tenants) -> None:
    await tenants.limit(max_keys=1)
    path = f"/tenants/{ACME.project_id}/keys"
    status, made, _ = await tenants.ask(OPERATOR_KEY, "POST", path, {"name": "one"})
    assert status == 200
    status, body, _ = await tenants.ask(tenants.acme.api_key, "POST", path, {"name": "two"})
    assert (status, body["quota"]) == (429, "max_keys")
    assert (await tenants.use())["keys"] == 1
    await tenants.ask(OPERATOR_KEY, "DELETE", f"{path}/{made['id']}")
    assert (await tenants.ask(OPERATOR_KEY, "POST", path, {"name": "two"}))[0] == 200


async def test_limits_are_set_shown_and_given_back_to_the_default(served: Served) -> None:
    async with served(max_rooms=7) as tenants:
        shown = await tenants.limit(max_rooms=3, max_queues=None, requests_per_second=2.5)
        quota = shown["quota"]
        assert (quota["max_rooms"], quota["max_queues"], quota["requests_per_second"]) == (3, None, 2.5)
        shown = await tenants.limit(max_rooms="default")
        assert (shown["quota"]["max_rooms"], shown["quota"]["max_queues"]) == (7, None)
        for wrong in ({"max_moons": 1}, {"max_rooms": -1}, {"max_rooms": "many"}, {"max_moons": "default"}):
            path = f"/tenants/{ACME.project_id}/quota"
            status, body, _ = await tenants.ask(OPERATOR_KEY, "PATCH", path, wrong)
            assert (status, next(iter(wrong)) in body["error"]) == (400, True)
        assert (await tenants.ask(tenants.acme.api_key, "PATCH", path, {"max_rooms": 99}))[0] == 403
        status, own, _ = await tenants.ask(tenants.acme.api_key, "GET", f"/tenants/{ACME.project_id}")
        assert (status, own["quota"]["max_rooms"], own["use"]["rooms"]) == (200, 7, 0)
        assert (await tenants.ask(tenants.rival.api_key, "GET", f"/tenants/{ACME.project_id}"))[0] == 404
    async with served(max_rooms=7) as tenants:  # what was set is kept
        status, own, _ = await tenants.ask(tenants.acme.api_key, "GET", f"/tenants/{ACME.project_id}")
        assert (own["quota"]["max_rooms"], own["quota"]["max_queues"]) == (7, None)


async def test_metrics_show_what_tenants_use_only_where_the_operator_chose_so(served: Served) -> None:
    async def metrics(tenants: Tenants) -> str:
        async with tenants.http.get(f"{tenants.server.url}/metrics") as response:
            return await response.text()

    async with served() as tenants, tenants.acme.client():
        assert "tenant" not in await metrics(tenants)
    async with (
        served(server={"tenant_labels": 1, "tenant_label": "name"}) as tenants,
        tenants.acme.client(),
        tenants.rival.client("one"),
        tenants.rival.client("two"),
    ):
        shown = await metrics(tenants)
        assert 'meshhost_tenant_used{resource="rooms",tenant="default"} 1.0' in shown
        assert 'meshhost_tenant_used{resource="rooms",tenant="other"} 2.0' in shown
        assert ACME.project_id not in shown


async def test_a_flood_of_refused_requests_is_read_slowly(tenants: Tenants, stack: AsyncExitStack) -> None:
    acme = await stack.enter_async_context(tenants.acme.client())
    await tenants.limit(requests_per_second=10)
    begun = asyncio.get_running_loop().time()
    passed = await accepted([acme.queues.list() for _ in range(40)])
    seconds = asyncio.get_running_loop().time() - begun
    assert passed < 40
    assert seconds > (passed - 11) / 10 > 0.5


async def test_chunks_of_a_stream_are_slowed_down_and_not_lost_by_the_rate(
    tenants: Tenants, stack: AsyncExitStack
) -> None:
    client = await stack.enter_async_context(newer_client(tenants.acme))
    await client.next(await client.opened("storage", "upload", "u"))
    await tenants.limit(requests_per_second=50)
    await client.add("u", contents.binary(kind="start", path="f"))
    for _ in range(80):
        assert (await client.next("u")).header["chunk"]["headers"]["kind"] == "pull"
        await client.add("u", contents.binary(kind="data"), b"x")
    await client.next("u")
    await client.add("u", contents.close())
    assert (await client.next("u")).header["chunk"] == contents.close()
    await tenants.limit(requests_per_second=None)
    acme = await stack.enter_async_context(tenants.acme.client())
    assert (await acme.storage.download(path="f")).data == b"x" * 80


async def test_moved_and_deleted_files_are_counted_once(tenants: Tenants, stack: AsyncExitStack) -> None:
    acme = await stack.enter_async_context(tenants.acme.client())
    for path, size in (("a", 100), ("b", 10), ("d/c", 1)):
        await acme.storage.upload(path=path, data=b"x" * size)

    async def counted() -> tuple[float, float]:
        use = await tenants.use()
        return use["files"], use["stored_bytes"]

    before = await counted()
    await acme.storage.move(source_path="a", destination_path="e/f")
    assert await counted() == before
    await acme.storage.move(source_path="b", destination_path="e/f", overwrite=True)
    assert await counted() == (before[0] - 1, before[1] - 100)
    await acme.storage.delete("d", recursive=True)
    assert await counted() == (before[0] - 2, before[1] - 101)
