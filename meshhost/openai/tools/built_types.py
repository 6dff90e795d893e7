"""Builds the types of the OpenAI library before the first answer arrives, in a thread.

The library builds the pydantic models of a stream's events when it reads the first event, which takes more than a second and
would block the event loop, with every other agent in it. `OpenAIResponsesAdapter.next` awaits `types_are_built` before it
asks the model; so a program pays for it at its first question, and an agent that never asks pays neither time nor memory.

Invariant: they are built once in a process, whatever number of callers wait, and a caller that is cancelled stops nothing.
The thread is no daemon: one that is ended within pydantic's native code would abort the process.
"""

import asyncio
import logging
import threading
from concurrent.futures import Future

import openai
from openai.types.responses import ResponseStreamEvent

__all__ = ["types_are_built"]

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_built: list[Future[None]] = []


async def types_are_built() -> None:
    """Return when the library's types are built. The first call begins it; one that fails is not repeated."""
    with _lock:
        if not _built:
            built: Future[None] = Future()
            built.set_running_or_notify_cancel()  # from here on, a cancelled waiter does not cancel it
            _built.append(built)
            threading.Thread(target=_build, args=(built,), name="meshhost openai types").start()
    if not _built[0].done():
        await asyncio.wrap_future(_built[0])


class _Event(openai.BaseModel):
    event: ResponseStreamEvent


def _build(built: Future[None]) -> None:
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}
    try:
        # The same ways that a stream takes: the union of all events, and one event that is given back as a dict.
        for kind in ("response.created", "response.output_item.added", "response.completed"):
            event = {
                "type": kind,
                "sequence_number": 0,
                "output_index": 0,
                "item": item,
                "response": {"output": [item]},
            }
            _Event.construct(event=event).event.to_dict(mode="python", warnings=False)
        # Its resources, and the HTTP client, are imported when they are first used.
        with openai.OpenAI(api_key="none", base_url="http://127.0.0.1") as client:
            _ = client.responses
    except Exception:
        # The first answer builds what is missing, in the loop.
        logger.debug("the types of the OpenAI library cannot be built beforehand", exc_info=True)
    finally:
        built.set_result(None)
