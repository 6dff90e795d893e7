"""`OpenThreads`: the open threads of a bot, by path; at most `max_threads` at once.

The bot hands every request to `post`, which finds the thread of its path or opens one in a task. When the limit is reached,
the thread that has been idle for longest makes room; when none is idle, the request is refused. All methods are plain
functions on the event loop, so nothing happens between their steps.

Invariant: a path has at most one thread that accepts requests. A thread that is closing has been forgotten here already,
and the next request for its path opens another.
"""

from collections.abc import Iterator
from typing import Any

from meshhost.agents.chat.owner import ThreadOwner
from meshhost.agents.chat.policy import ChatRequest
from meshhost.agents.chat.thread import ChatThread
from meshhost.tasks import TaskOwner

__all__ = ["OpenThreads"]


class OpenThreads:
    """The open threads of `owner` by path; each runs as a task of `tasks`."""

    def __init__(self, owner: ThreadOwner, *, tasks: TaskOwner, max_threads: int) -> None:
        self._owner = owner
        self._tasks = tasks
        self._max_threads = max_threads
        self._by_path: dict[str, ChatThread] = {}  # the most recently used is last

    def __iter__(self) -> Iterator[ChatThread]:
        return iter(list(self._by_path.values()))

    def __repr__(self) -> str:
        return f"<OpenThreads {list(self._by_path)}>"

    @property
    def activity(self) -> str | None:
        """What the busy threads do, one of them by its path; None when none is busy."""
        busy = [text for thread in self if (text := thread.activity) is not None]
        if not busy:
            return None
        return busy[0] if len(busy) == 1 else f"{busy[0]}; {len(busy) - 1} more threads"

    def find(self, path: Any) -> ChatThread | None:
        """Return the open thread of this path."""
        return self._by_path.get(_key(path))

    def add(self, thread: ChatThread) -> None:
        """Put a thread in the table, as the most recently used."""
        self._by_path[thread.path] = thread

    def post(self, request: ChatRequest) -> str | None:
        """Give a request to its thread, opened if need be; return the reason when it is refused, else None."""
        path = _key(request.path)
        thread = self._by_path.pop(path, None)
        is_new = thread is None
        if thread is None:
            if len(self._by_path) >= self._max_threads and not self._close_idle():
                return f"{len(self._by_path)} threads of {self._owner.name!r} are busy; send this message again later"
            thread = ChatThread(self._owner, path)
        self.add(thread)
        refusal = thread.post(request)
        if is_new:
            self._tasks.spawn(thread.run(), name=f"thread {path}")
        return refusal

    def forget(self, path: str, thread: object) -> None:
        """Drop this thread, unless its path has another one by now."""
        if self._by_path.get(path) is thread:
            del self._by_path[path]

    def drain(self) -> list[tuple[ChatThread, ChatRequest]]:
        """Let every thread end after the answer in progress; return the requests that will not be done."""
        return [(thread, request) for thread in self for request in thread.drain()]

    def clear(self) -> None:
        """Drop all threads, whose tasks have ended."""
        self._by_path.clear()

    def _close_idle(self) -> bool:
        """Close the thread that has been idle for longest; return whether there was one."""
        idle = next((thread for thread in self if thread.is_idle), None)
        if idle is not None:
            self.forget(idle.path, idle)
            idle.drain()
        return idle is not None


def _key(path: Any) -> str:
    # The room server ignores leading and trailing slashes, too.
    return str(path).strip("/")
