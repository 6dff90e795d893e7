"""Kinds of tools, blobs, builders and mounts that MeshAgent programs put together."""

import asyncio
import base64
from typing import Any

import pytest
from pydantic import BaseModel

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    RoomError,
    ToolError,
)
from meshhost.protocol.messages import FileResponse, JsonResponse, TextResponse
from meshhost.tools import (
    Blob,
    BlobStorage,
    FunctionTool,
    LocalRoomTool,
    MultiTool,
    MultiToolkit,
    StorageToolkit,
    Tool,
    ToolContext,
    Toolkit,
    get_bytes_from_url,
)
from meshhost.tools.builders import StorageToolkitBuilder, ToolkitBuilder, ToolkitConfig, make_toolkits
from meshhost.tools.pydantic import PydanticTool
from meshhost.tools.storage import StorageToolRoomMount

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
CONTEXT: Any = ToolContext(room=None, caller=None)  # type: ignore[arg-type]


class Say(FunctionTool):
    def __init__(self, name: str = "say", answer: Any = None, **more: Any) -> None:
        super().__init__(name=name, input_schema=TEXT, strict=False, output_schema={"type": "object"}, **more)
        self.answer = answer

    async def execute(self, context: ToolContext, text: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or TextResponse(text=text)


async def test_a_function_tool_is_a_tool() -> None:
    tool = Say(output_spec=None)
    assert isinstance(tool, Tool)
    assert await Toolkit(name="k", tools=[tool]).execute(context=CONTEXT, name="say", arguments={"text": "a"}) == (
        TextResponse(text="a")
    )
    with pytest.raises(TypeError):
        Say(nonsense=1)


def test_a_local_room_tool_has_its_room() -> None:
    room: Any = object()

    class Here(LocalRoomTool):
        async def execute(self, context: ToolContext) -> None: ...

    assert Here(room=room, name="here", input_schema={"type": "object"}).room is room
    with pytest.raises(RoomError, match="'here' was made without a room"):
        Here(room=None, name="here", input_schema={"type": "object"}).room  # type: ignore[arg-type]  # noqa: B018
    assert Toolkit(name="k", tools=[], room=room).room is room
    with pytest.raises(RoomError, match="toolkit 'k' was made without a room"):
        Toolkit(name="k", tools=[]).room  # noqa: B018


async def test_a_multi_tool_calls_all_of_its_tools() -> None:
    kit = MultiToolkit(required=[Say("also", rules=["be kind"])], base_toolkit=Toolkit(name="k", tools=[Say()]))
    [tool] = kit.tools
    assert tool.rules == ["be kind"]
    arguments = {"say": {"text": "a"}, "also": {"text": "b"}}
    answer = await kit.execute(context=CONTEXT, name="say", arguments=arguments)
    assert isinstance(answer, JsonResponse)
    assert [answer.json[name]["text"] for name in ("say", "also")] == ["a", "b"]
    with pytest.raises(InvalidRequestError, match="also: is required"):
        await kit.execute(context=CONTEXT, name="say", arguments={"say": {"text": "a"}})


async def test_a_multi_tool_returns_a_file_and_raises_what_a_tool_raises() -> None:
    file = FileResponse(data=b"x", name="x", mime_type="text/plain")
    tool = MultiTool(tools=[Say(answer=file), Say("two")])
    both = {"say": {"text": "a"}, "two": {"text": "b"}}
    assert await tool.execute(context=CONTEXT, **both) == file
    with pytest.raises(ToolError, match="no"):
        await MultiTool(tools=[Say(answer=ToolError("no")), Say("two")]).execute(context=CONTEXT, **both)
    with pytest.raises(InvalidRequestError, match="at least one tool"):
        MultiTool(tools=[])
    with pytest.raises(InvalidRequestError, match="two tools define 'd' differently"):
        MultiTool(tools=[Say(defs={"d": {"type": "string"}}), Say("two", defs={"d": {"type": "number"}})])


def test_blobs_are_kept_within_bounds() -> None:
    storage = BlobStorage(max_bytes=4)
    uri = storage.store(Blob(mime_type="text/plain", data=b"abc"))
    assert storage.get(uri).data == b"abc"
    with pytest.raises(LimitExceededError, match="remove some"):
        storage.store(Blob(mime_type="text/plain", data=b"de"))
    storage.remove(uri)
    with pytest.raises(NotFoundError):
        storage.get(uri)


async def test_bytes_of_a_url_are_data_or_public() -> None:
    blob = await get_bytes_from_url(url=f"data:text/csv;base64,{base64.b64encode(b'a,b').decode()}")
    assert (blob.mime_type, blob.data) == ("text/csv", b"a,b")
    for url in ("data:text/csv,a", "data:;base64,%%", "data:nothing"):
        with pytest.raises(InvalidRequestError, match="url"):
            await get_bytes_from_url(url=url)
    with pytest.raises(InvalidRequestError, match="not on the public internet"):
        await get_bytes_from_url(url="http://127.0.0.1/secret")


async def test_a_pydantic_tool_gets_its_model() -> None:
    class Pair(BaseModel):
        a: int
        b: int = 1

    class Add(PydanticTool):
        async def execute_model(self, *, context: ToolContext, arguments: Pair) -> dict[str, int]:
            return {"sum": arguments.a + arguments.b}

    tool = Add(name="add", input_model=Pair)
    assert await tool.execute(context=CONTEXT, a=2) == {"sum": 3}
    with pytest.raises(InvalidRequestError, match=r"^a: "):
        await tool.execute(context=CONTEXT, a="x")


async def test_toolkits_are_made_for_those_who_ask_by_name() -> None:
    class Config(ToolkitConfig):
        size: int = 1

    class Builder(ToolkitBuilder):
        def __init__(self, is_async: bool) -> None:
            super().__init__(name="own", type=Config)
            self.is_async = is_async

        def make(self, *, model: str, config: Config) -> Any:
            kit = Toolkit(name=f"{model}-{config.size}", tools=[])
            return asyncio.sleep(0, kit) if self.is_async else kit

    ready = Toolkit(name="ready", tools=[])
    for is_async in (False, True):
        builders = [Builder(is_async), ready, StorageToolkitBuilder()]
        wanted = [{"name": "own", "size": 2}, {"name": "ready"}, {"name": "storage"}]
        made = await make_toolkits(builders, wanted, model="m")
        assert [kit.name for kit in made] == ["m-2", "ready", "storage"]
    with pytest.raises(InvalidRequestError, match=r"tools\.own\.size"):
        await make_toolkits([Builder(False)], [{"name": "own", "size": "big"}], model="m")
    with pytest.raises(InvalidRequestError, match="there is no 'x' here; there are: own"):
        await make_toolkits([Builder(False)], [{"name": "x"}], model="m")
    with pytest.raises(NotImplementedError):
        ToolkitBuilder(name="n", type=ToolkitConfig).make(model="m", config=None)


@pytest.mark.parametrize(
    ("mount", "path", "inside"),
    [
        ("/", "a/b.txt", "folder/a/b.txt"),
        ("/docs", "docs/b.txt", "folder/b.txt"),
        ("/docs", "/docs", "folder"),
        ("/docs", "docsx/b.txt", None),
        ("/docs", "/docs/../other", None),
        ("/", "../../secret", "folder/secret"),
    ],
)
def test_a_mount_shows_a_folder_and_nothing_else(mount: str, path: str, inside: str | None) -> None:
    room: Any = object()
    assert StorageToolRoomMount(room=room, path=mount, subpath="folder").inside(path) == inside


async def test_tools_of_mounts_reach_no_other_path() -> None:
    seen: list[Any] = []

    class Storage:
        async def delete(self, *, path: str) -> None:
            seen.append(path)

    room: Any = type("Room", (), {"storage": Storage()})()
    kit = StorageToolkit(
        mounts=[
            StorageToolRoomMount(room=room, path="/own", subpath="a"),
            StorageToolRoomMount(room=room, path="/read", read_only=True),
        ]
    )

    async def delete(path: str) -> None:
        await kit.execute(context=CONTEXT, name="delete_file", arguments={"path": path})

    await delete("own/x.txt")
    assert seen == ["a/x.txt"]
    with pytest.raises(AccessDeniedError, match="mounted read-only"):
        await delete("read/x.txt")
    with pytest.raises(NotFoundError, match="under no mount"):
        await delete("other/x.txt")
    assert len(StorageToolkit(read_only=True, mounts=[]).tools) == 3
