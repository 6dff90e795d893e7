"""Stays in the room as a guest: offers a toolkit and a task, messages, and does what the test tells."""

import asyncio
from typing import Any

from lines import error_of, given, heard, room_client, say
from meshagent.agents.task_runner import TaskRunner
from meshagent.api.messaging import BinaryContent, FileContent, JsonContent, TextContent
from meshagent.tools import ContentTool, FunctionTool, ToolContext, Toolkit
from meshagent.tools.hosting import start_hosted_toolkit


class Add(FunctionTool):
    """Adds."""

    def __init__(self) -> None:
        super().__init__(
            name="add",
            title="Add",
            description="adds two numbers",
            input_schema={
                "type": "object",
                "required": ["a", "b"],
                "additionalProperties": False,
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            },
        )

    async def execute(self, context: ToolContext, *, a: int, b: int) -> Any:
        return JsonContent(json={"sum": a + b})


class Fail(FunctionTool):
    """Fails."""

    def __init__(self) -> None:
        super().__init__(
            name="fail",
            input_schema={"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        )

    async def execute(self, context: ToolContext, **arguments: Any) -> Any:
        raise ValueError("it cannot be done")


class Echo(ContentTool):
    """Answers with the content that it gets, or with each of a stream."""

    def __init__(self) -> None:
        super().__init__(name="echo")

    async def execute(self, *, context: ToolContext, input: Any) -> Any:
        if not hasattr(input, "__aiter__"):
            return input

        async def each() -> Any:
            async for content in input:
                yield content

        return each()


class CountDown(ContentTool):
    """Answers one number with a stream of those below it; one of them may be an error."""

    def __init__(self) -> None:
        super().__init__(name="count_down")

    async def execute(self, *, context: ToolContext, input: Any) -> Any:
        async def numbers() -> Any:
            for number in range(input.json["from"], 0, -1):
                if number == input.json.get("fails_at"):
                    raise ValueError("it cannot go on")
                yield JsonContent(json={"number": number})
                await asyncio.sleep(input.json.get("pause", 0))

        return numbers()


class Sum(ContentTool):
    """Answers a stream of numbers once, with their sum."""

    def __init__(self) -> None:
        super().__init__(name="sum")

    async def execute(self, *, context: ToolContext, input: Any) -> Any:
        total = 0
        async for content in input:
            total += content.json["number"]
            say(added=content.json["number"])
        say(input_ended=True)
        return JsonContent(json={"sum": total})


class Greeter(TaskRunner):
    """Greets who asks."""

    def __init__(self) -> None:
        schema = {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string"}},
        }
        super().__init__(name="greeter", input_schema=schema)

    async def ask(self, *, context: Any, arguments: dict[str, Any], attachment: bytes | None = None) -> Any:
        return {"hello": arguments["name"]}


async def main() -> None:
    async with room_client() as room:
        room.messaging.on("message", lambda message: say(message=[message.type, message.message]))
        room.storage.on("file.updated", lambda path, participant_id: say(updated=path))
        room.storage.on(
            "file.moved",
            lambda source_path, destination_path, participant_id: say(file_moved=[source_path, destination_path]),
        )
        room.messaging.on("stream_requested", lambda request: tasks.append(asyncio.create_task(take_stream(request))))
        room.on("reconnected", lambda **_: say(event="reconnected"))
        await room.messaging.enable()
        offered = []
        if given.get("offers", True):
            tools = [Add(), Fail(), Echo(), CountDown(), Sum()]
            offered.append(
                await start_hosted_toolkit(room=room, toolkit=Toolkit(name="math56", tools=tools, public=True))
            )
            greeter = Greeter()
            await greeter.start(room=room)
            offered.append(greeter)
        tasks.append(asyncio.create_task(tell_closed(room)))
        say(ready=room.local_participant.id)
        while (told := await heard()) is not None:
            await STEPS[told["do"]](room, told)
        for each in offered:
            await each.stop()


CONTENTS = [
    TextContent(text="hello"),
    JsonContent(json=[1, "two"]),
    FileContent(data=b"\x00\x01", name="a.bin", mime_type="application/x"),
    BinaryContent(data=b"\x02", headers={"kind": "x"}),
]
tasks: list[Any] = []
streams: list[Any] = []


def named(room: Any, name: str) -> Any:
    """The visible participant of this name."""
    [found] = [each for each in room.messaging.get_participants() if each.get_attribute("name") == name]
    return found


def shown(content: Any) -> Any:
    """A content as JSON."""
    return [
        type(content).__name__,
        getattr(content, "text", None),
        getattr(content, "json", None),
        len(getattr(content, "data", b"")),
    ]


async def echoed(room: Any, content: Any) -> Any:
    """What the tool `echo` of the other guest makes of a content."""
    return await room.invoke(toolkit="math56", tool="echo", input=content, participant_id=given.get("other"))


async def tell_closed(room: Any) -> None:
    """Tell when the client has ended for good."""
    await room.wait_for_close()
    say(closed=True)


async def tell_result(doing: Any) -> None:
    """Tell how something ended, while others go on."""
    say(result=await error_of(doing))


async def stream_tool(room: Any, told: dict[str, Any]) -> Any:
    """Call a tool with a stream, or with one content; what it answers, a content at a time."""
    call: Any = told.get("input")
    if "inputs" in told:

        async def inputs() -> Any:
            for each in told["inputs"]:
                yield JsonContent(json=each)
                await asyncio.sleep(told.get("pause", 0))
            if told.get("never_ends"):
                await asyncio.Event().wait()

        call = inputs()
    answer = await room.invoke(toolkit=told["toolkit"], tool=told["tool"], input=call)
    if not hasattr(answer, "__aiter__"):
        say(answer=shown(answer))
        return
    got = 0
    async for content in answer:
        if type(content).__name__ != "_ControlContent":
            say(chunk=shown(content))
        got += 1
        if got == told.get("leaves_after"):
            break


async def open_stream(room: Any, told: dict[str, Any]) -> None:
    """Open a stream of messages to a participant."""
    stream = await room.messaging.stream(
        to=named(room, told["to"]), type="chat", message=told["message"], attachment=b"\x01"
    )
    tasks.append(asyncio.create_task(read_stream(stream)))


async def take_stream(request: Any) -> None:
    """Accept a stream of messages, or not."""
    say(requested=[request.type, request.message, len(request.attachment or b"")])
    if request.message.get("unwanted"):
        await request.reject(message="not now")
        return
    tasks.append(asyncio.create_task(read_stream(await request.accept())))


async def read_stream(stream: Any) -> None:
    """Tell what comes on a stream of messages."""
    streams.append(stream)
    say(accepted=True)
    async for event in stream:
        if hasattr(event, "message") and hasattr(event, "attachment"):
            say(said=event.message)
        else:
            say(stream_event=type(event).__name__)
    say(stream_ended=True)


async def invoke(room: Any, told: dict[str, Any]) -> Any:
    answer = await room.invoke(
        toolkit=told["toolkit"], tool=told["tool"], input=told["input"], participant_id=told.get("participant_id")
    )
    if isinstance(answer, JsonContent):
        answer = answer.json
    if isinstance(answer, TextContent):
        answer = answer.text
    say(answer=answer)


async def toolkits(room: Any, told: dict[str, Any]) -> None:
    found = await room.list_toolkits(participant_name=told.get("of"))
    say(toolkits={kit.name: [tool.name for tool in kit.tools] for kit in found})


async def call(room: Any, told: dict[str, Any]) -> None:
    say(result=await error_of(invoke(room, told)))


async def send(room: Any, told: dict[str, Any]) -> None:
    await room.messaging.send_message(to=named(room, told["to"]), type="note", message=told["message"])
    say(sent=True)


async def people(room: Any, told: dict[str, Any]) -> None:
    say(people=sorted(str(each.get_attribute("name")) for each in room.messaging.get_participants()))


async def queue(room: Any, told: dict[str, Any]) -> None:
    await room.queues.send(name=told["name"], message=told["message"])
    say(queued=True)


async def start_stream_tool(room: Any, told: dict[str, Any]) -> None:
    tasks.append(asyncio.create_task(tell_result(stream_tool(room, told))))


async def contents(room: Any, told: dict[str, Any]) -> None:
    say(contents=[shown(await echoed(room, each)) for each in CONTENTS])


async def start_stream(room: Any, told: dict[str, Any]) -> None:
    say(opened=await error_of(open_stream(room, told)))


async def say_on_stream(room: Any, told: dict[str, Any]) -> None:
    await streams[-1].send_message(type="said", message=told["message"])


async def close_stream(room: Any, told: dict[str, Any]) -> None:
    await streams[-1].close()
    say(closed=True)


async def move(room: Any, told: dict[str, Any]) -> None:
    say(moved=await error_of(room.storage.move(source_path=told["source"], destination_path=told["destination"])))


async def edit(room: Any, told: dict[str, Any]) -> None:
    document = await room.sync.open(path=told["path"])
    await document.synchronized
    document.root.append_child("note", {"text": told["text"]})
    await asyncio.sleep(0.2)
    say(edited=document.root.to_json())


STEPS = {
    "toolkits": toolkits,
    "invoke": call,
    "send": send,
    "people": people,
    "queue": queue,
    "stream_tool": start_stream_tool,
    "contents": contents,
    "open_stream": start_stream,
    "say_on_stream": say_on_stream,
    "close_stream": close_stream,
    "move": move,
    "edit": edit,
}

asyncio.run(asyncio.wait_for(main(), given.get("seconds", 120)))
