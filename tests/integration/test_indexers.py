"""Indexers in real rooms: of files that change while they work or while they are away, and of a web site with its rules."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshhost.agents.indexer import (
    ChonkieChunker,
    Embedder,
    HashingEmbedder,
    OpenAIEmbedder,
    RagTool,
    RagToolkit,
    SiteIndexer,
    StorageIndexer,
    TextChunker,
)
from meshhost.agents.indexer.pages import Crawl, text_of
from meshhost.errors import InvalidRequestError, LLMError, SettingsError, ToolError
from meshhost.gateway.provider import ProviderTable
from meshhost.gateway.providers.openai_compatible import OpenAICompatibleProvider
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.testing.server import RunningServer, running_server
from meshhost.tools.tool import ToolContext

# Each test starts a process that loads LanceDB.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HOME = ipaddress.ip_address("127.0.0.1")
SECONDS = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
async def room(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client() as client:
        yield client


class Counting(HashingEmbedder):
    """Counts the texts that it embeds, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__(size=64)
        self.texts: list[str] = []
        self.failures = 0

    async def embed_many(self, texts: Any) -> list[list[float]]:
        if self.failures:
            self.failures -= 1
            raise LLMError("not now")
        self.texts += texts
        return await super().embed_many(texts)


class Indexer(StorageIndexer):
    retry = type(StorageIndexer.retry)(first_delay=0.01, max_delay=0.02)
    refresh_seconds = 0.1


async def done(indexer: StorageIndexer) -> None:
    """Return when all events of this moment are worked off: they come before the answer to a request."""
    await indexer.room.storage.exists(path="x")
    async with asyncio.timeout(SECONDS):
        await indexer.drain()


async def texts_of(room: RoomClient, table: str = "storage_index") -> dict[str, list[str]]:
    rows = await room.database.search(table=table, select=["url", "n", "text"])
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["url"], row["n"])):
        found.setdefault(row["url"], []).append(row["text"])
    return found


async def test_files_are_indexed_as_they_come_change_and_go(server: RunningServer, room: RoomClient) -> None:
    embedder = Counting()
    await room.storage.upload(path="notes/old.md", data=b"Bears sleep in winter.")
    await room.storage.upload(path=".schemas/x.json", data=b"{}")
    async with server.client(name="indexer", role="agent") as own:
        indexer = Indexer(name="indexer", embedder=embedder, chunker=TextChunker(chars=40))
        await indexer.start(room=own)
        await done(indexer)
        assert await texts_of(room) == {"notes/old.md": ["old.md", "Bears sleep in winter."]}

        await room.storage.upload(
            path='it\'s "new".txt', data=b"Whales swim and sleep.\n\n" + b"Otters swim, too, and sleep at sea."
        )
        await room.storage.upload(path="photo.png", data=b"\x89PNG")
        await done(indexer)
        found = await texts_of(room)
        assert found['it\'s "new".txt'] == [
            'it\'s "new".txt',
            "Whales swim and sleep.",
            "Otters swim, too, and sleep at sea.",
        ]
        assert found["photo.png"] == ["photo.png"]

        before = len(embedder.texts)
        await room.storage.upload(path='it\'s "new".txt', data=b"Whales swim and sleep.", overwrite=True)
        await done(indexer)
        assert (await texts_of(room))['it\'s "new".txt'] == ['it\'s "new".txt', "Whales swim and sleep."]
        assert len(embedder.texts) == before  # these were embedded already
        await room.storage.delete("photo.png")
        await done(indexer)
        assert "photo.png" not in await texts_of(room)

        toolkit = RagToolkit("storage_index", embedder)
        context = ToolContext(room=room, caller=room.local_participant)
        answer: Any = await toolkit.execute(context=context, name="rag_search", arguments={"query": "whales swim"})
        assert answer.json["results"][0] == 'from it\'s "new".txt: Whales swim and sleep.'
        async with asyncio.timeout(SECONDS):
            while len(await room.database.list_indexes(table="storage_index")) < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
        plain = RagTool(table="storage_index")
        found_by_text = await plain.execute(context, "bears")
        assert found_by_text == {"results": ["from notes/old.md: Bears sleep in winter."]}
        await indexer.stop()
        await indexer.stop()


async def test_what_happened_while_it_was_away_is_made_up_for(server: RunningServer, room: RoomClient) -> None:
    for name in ("stays", "changes", "goes"):
        await room.storage.upload(path=f"{name}.txt", data=b"one")
    async with server.client(name="indexer", reconnect=ReconnectPolicy(first_delay=0.0)) as own:
        embedder = Counting()
        indexer = Indexer(name="indexer", embedder=embedder)
        await indexer.start(room=own)
        await done(indexer)
        back = asyncio.Event()
        own.on("reconnected", back.set)
        server.cut(own)
        await room.storage.delete("goes.txt")
        await room.storage.upload(path="changes.txt", data=b"two", overwrite=True)
        async with asyncio.timeout(SECONDS):
            await back.wait()
        await done(indexer)
        assert await texts_of(room) == {"changes.txt": ["changes.txt", "two"], "stays.txt": ["stays.txt", "one"]}
        await indexer.stop()
    await room.storage.delete("stays.txt")
    async with server.client(name="indexer") as own:
        indexer = Indexer(name="indexer", embedder=embedder)
        await indexer.start(room=own)
        await done(indexer)
        assert list(await texts_of(room)) == ["changes.txt"]
        await indexer.stop()


async def test_a_file_that_cannot_be_indexed_is_tried_again_and_stops_no_other(
    server: RunningServer, room: RoomClient
) -> None:
    class Choosy(Indexer):
        async def read_file(self, *, path: str) -> str | None:
            if path == "bad.txt":
                raise ValueError("cannot read that")
            return await super().read_file(path=path)

    embedder = Counting()
    embedder.failures = 2
    async with server.client(name="indexer") as own:
        indexer = Choosy(name="indexer", embedder=embedder)
        await indexer.start(room=own)
        await room.storage.upload(path="bad.txt", data=b"x")
        await room.storage.upload(path="good.txt", data=b"fine")
        await done(indexer)
        assert await texts_of(room) == {"good.txt": ["good.txt", "fine"]}
        assert indexer.activity is None
        await indexer.stop()


# ---- sites --------------------------------------------------------------------------------------------------------

RULES: "web.AppKey[list[Any]]" = web.AppKey("rules", list)
ASKED: "web.AppKey[list[str]]" = web.AppKey("asked", list)
HOME_PAGE = (
    "<title>Home  page</title><nav>menu</nav><p>Welcome to <b>bears</b>.</p>"
    '<a href="/a#x">a</a><a href="b.html">b</a><a href="http://127.0.0.2:1/">off</a><a href="/secret">s</a>'
    '<a href="mailto:x@y">m</a><a href="/away">w</a><a href="/gone">g</a>'
)
PAGES = {
    "/": HOME_PAGE,
    "/a": "<title>A</title><script>no()</script><div>Whales &amp; otters</div>"
    "<a href='/'>home</a> <a href='/plain.txt'>p</a>",
    "/b.html": "<p>no title</p>",
}


@pytest.fixture
async def site(aiohttp_server: Any) -> Any:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/robots.txt":
            [rules] = request.app[RULES]
            return web.Response(text=rules) if isinstance(rules, str) else web.Response(status=rules)
        if request.path == "/plain.txt":
            return web.Response(text="Plain text.")
        if request.path == "/away":
            raise web.HTTPFound("http://localhost:1/")
        if request.path not in PAGES:
            raise web.HTTPNotFound
        return web.Response(text=PAGES[request.path], content_type="text/html")

    app = web.Application()
    app[RULES] = ["User-agent: *\nDisallow: /secret"]
    app[ASKED] = asked
    app.router.add_get("/{path:.*}", answer)
    return await aiohttp_server(app, host="127.0.0.1")


class OfThisMachine(SiteIndexer):
    """May read the site of the test."""

    def new_crawl(self, url: str, max_pages: int) -> Crawl:
        return Crawl(url, max_pages=max_pages, pause=0.0, is_allowed=lambda address: address == HOME)


async def test_a_site_is_indexed_by_its_rules(server: RunningServer, room: RoomClient, site: Any) -> None:
    base = str(site.make_url("/"))
    async with server.client(name="indexer", role="agent") as own:
        indexer = OfThisMachine(name="site-indexer", embedder=HashingEmbedder(size=32))
        await indexer.start(room=own)
        arguments = {"url": base, "table": "site", "queue": "firecrawl"}
        answer = await room.agents.ask(agent="site-indexer", arguments=arguments)
        assert answer == {"pages": 4, "chunks": 8, "failed": 2, "refused": 1}
        assert await texts_of(room, "site") == {
            base: ["Home page", "Welcome to bears.\naboffsmwg"],
            f"{base}a": ["A", "Whales & otters\nhome p"],
            f"{base}b.html": [f"{base}b.html", "no title"],
            f"{base}plain.txt": ["plain.txt", "Plain text."],
        }
        assert "/secret" not in site.app[ASKED]
        answer = await room.agents.ask(agent="site-indexer", arguments=arguments | {"max_pages": 1})
        assert answer["pages"] == 1
        assert list(await texts_of(room, "site")) == [base]
        await indexer.stop()


@pytest.mark.parametrize("rules", ["User-agent: *\nDisallow: /", 500, 403])
async def test_a_site_that_does_not_want_it_is_left_alone(site: Any, rules: Any) -> None:
    site.app[RULES][:] = [rules]
    crawl = Crawl(str(site.make_url("/")), pause=0.0, is_allowed=lambda address: address == HOME)
    with pytest.raises(ToolError, match=r"robots\.txt does not permit"):
        assert [page async for page in crawl.pages()] == []
    assert site.app[ASKED] == ["/robots.txt"]


async def test_a_site_without_rules_is_read(site: Any) -> None:
    site.app[RULES][:] = [404]
    crawl = Crawl(str(site.make_url("/a")), max_pages=1, is_allowed=lambda address: address == HOME)
    assert [page.text async for page in crawl.pages()] == ["Whales & otters\nhome p"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]/", "file:///etc/passwd", "http://2130706433/", "nonsense"]
)
async def test_an_address_of_our_own_network_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="url"):
        assert [page async for page in Crawl(url).pages()] == []


def test_text_and_links_of_broken_html() -> None:
    title, text, links = text_of("<title>a<p>b<li>c</svg><a href='http://['>x</a><a>y</a><style>z", "http://h/")
    assert (title, text, links) == ("a", "b\ncxy", [])


# ---- embedders and chunkers ---------------------------------------------------------------------------------------


async def test_like_texts_are_near_each_other() -> None:
    embedder = HashingEmbedder()
    one, like, other = await embedder.embed_many(["whales swim in the sea", "a whale swims in a sea", "tax forms 2026"])
    assert one == await embedder.embed(text="whales swim in the sea")
    assert sum(a * b for a, b in zip(one, like, strict=True)) > 3 * abs(
        sum(a * b for a, b in zip(one, other, strict=True))
    )
    assert sum(number * number for number in one) == pytest.approx(1)
    assert await embedder.embed(text="") == [0.0] * 512


async def test_an_embedder_of_a_program_needs_one_method() -> None:
    class Own(Embedder):
        async def embed(self, *, text: str) -> list[float]:
            return [float(len(text)), 0.0]

    assert await Own(size=2, max_length=10).embed_many(["a", "bc"]) == [[1.0, 0.0], [2.0, 0.0]]


async def test_openai_is_asked_through_the_gateway(tmp_path: Path, aiohttp_server: Any) -> None:
    asked: list[Any] = []

    async def embeddings(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append((request.headers["Authorization"], body["model"], body["input"]))
        size = 2 if body["input"] == ["short"] else 3
        return web.json_response({"data": [{"embedding": [0.5] * size, "index": 0} for _ in body["input"]]})

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    upstream = await aiohttp_server(app)
    provider = OpenAICompatibleProvider(
        name="openai", base_url=str(upstream.make_url("/v1")), api_key="sk-server", api=None, default_model=None
    )
    async with running_server(tmp_path, providers=ProviderTable({"*": provider})) as server, server.client() as room:
        embedder = OpenAIEmbedder(size=3, max_length=100, model="text-embedding-3-small")
        with pytest.raises(SettingsError, match="pass a client"):
            await embedder.embed(text="x")
        embedder.use(room)
        assert await embedder.embed(text="x") == [0.5] * 3
        assert len(await embedder.embed_many([str(number) for number in range(100)])) == 100
        assert [len(texts) for _, _, texts in asked] == [1, 64, 36]
        assert asked[0][:2] == ("Bearer sk-server", "text-embedding-3-small")
        with pytest.raises(LLMError, match="no vectors of 3 numbers"):
            await embedder.embed(text="short")
    with pytest.raises(LLMError, match="could not be asked"):
        await embedder.embed(text="x")


async def test_openai_is_asked_by_a_client_of_the_program() -> None:
    class Client:
        def __init__(self) -> None:
            self.embeddings = self

        async def create(self, *, input: list[str], model: str, encoding_format: str) -> Any:
            vectors = [type("One", (), {"embedding": [1.0, 2.0]}) for _ in input]
            return type("Answer", (), {"data": vectors})

    embedder = OpenAIEmbedder(size=2, max_length=100, model="m", openai=Client())
    assert await embedder.embed(text="x") == [1.0, 2.0]


async def test_a_text_is_cut_where_it_may_be() -> None:
    text = "First one. Second one.\n\nA paragraph of its own.\nAnd a line.\n\n" + "x" * 50 + "  "
    chunks = await TextChunker(chars=30).chunk(text=text)
    assert [chunk.text for chunk in chunks] == [
        "First one. Second one.",
        "A paragraph of its own.",
        "And a line.\n\n" + "x" * 17,
        "x" * 30,
        "x" * 3,
    ]
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert max(len(chunk.text) for chunk in await TextChunker().chunk(text="word " * 1000, max_length=50)) <= 100
    assert await ChonkieChunker().chunk(text="") == []

    class Library:
        def chunk(self, text: str) -> Any:
            return [type("One", (), {"text": text, "start_index": 0, "end_index": len(text)})]

    [chunk] = await ChonkieChunker(Library()).chunk(text="all of it")
    assert (chunk.text, chunk.start, chunk.end) == ("all of it", 0, 9)
