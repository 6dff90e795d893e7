"""The first question to a model does not block the event loop while the OpenAI library builds its types."""

import subprocess
import sys

# In a process of its own: in this one, other tests have built the types.
PROGRAM = """
import asyncio, time
from openai.types.responses import ResponseStreamEvent
import openai
from meshhost.openai.tools.built_types import types_are_built

class Read(openai.BaseModel):
    event: ResponseStreamEvent

async def main():
    first, second = asyncio.ensure_future(types_are_built()), asyncio.ensure_future(types_are_built())
    await asyncio.sleep(0)
    first.cancel()
    turns, begun = 0, time.perf_counter()
    while not second.done():
        await asyncio.sleep(0.01)
        turns += 1
    await second
    building = time.perf_counter() - begun
    began = time.perf_counter()
    for kind in ("response.created", "response.output_item.added", "response.output_text.delta", "response.completed"):
        read = Read.construct(event={"type": kind, "response": {}, "item": {"type": "message"}})
        read.event.to_dict(mode="python", warnings=False)
    print(turns, building, time.perf_counter() - began)

asyncio.run(main())
"""


def test_the_types_are_built_beside_the_loop_and_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    turns, building, reading = map(float, done.stdout.split())
    # Without the thread the loop turns once, and reading the first events takes as long as building does.
    assert turns > 5
    assert reading < building / 2
