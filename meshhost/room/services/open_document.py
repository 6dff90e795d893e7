"""`OpenDocument`: a document that is open here, and the local edits of it that are not saved yet.

`SyncClient` (sync.py) does the requests; this class keeps the account. Edits are counted: `add` makes one more, `settle` says
up to which count the server has answered, and the document is saved when both counts are equal. An edit counts as settled
when the server stored it or refused it.

Tasks: `add` is called by the document in whatever task edits it. `next_edits` is awaited only by the document's sender task.
`wait_settled` may be awaited by any number of tasks.

Invariant: an edit leaves `_edits` only to be sent. If sending fails it is put back in front with `add_first`; if it is refused,
`correct` drops everything edited since, because later edits may depend on the refused one.
"""

import asyncio

from meshhost.documents.crdt import merge_updates
from meshhost.documents.document import MeshDocument
from meshhost.errors import RoomError

__all__ = ["OpenDocument"]


class OpenDocument:
    """One open document of a SyncClient: the document, how often it was opened, and its edits that wait to be sent."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        """How often it was opened, less how often it was closed."""
        self.changing = asyncio.Lock()
        """Held while the document is opened or closed, so that these do not overlap."""
        self.document: MeshDocument | None = None
        """None until the server has replied with the schema, and after the document was closed."""
        self.early: list[bytes] = []
        """States that arrived before the reply that carries the schema."""
        self.has_state = asyncio.Event()
        self.is_connected = asyncio.Event()
        self.sender: asyncio.Task[None] | None = None
        self.corrected = asyncio.Event()
        """Set when the server's state has replaced ours after a refusal."""
        self.error: RoomError | None = None
        """Why an edit was refused, until `raise_refusal` reports it."""
        self._edits: list[bytes] = []
        self._edited = asyncio.Event()
        self._made = 0
        self._settled = 0
        self._given_up = 0
        self._progress = asyncio.Event()

    def add(self, edit: bytes) -> None:
        """Queue a local edit."""
        self._edits.append(edit)
        self._made += 1
        self._edited.set()

    def add_first(self, edits: bytes) -> None:
        """Queue edits that must be sent again, before all others. They are counted already."""
        self._edits.insert(0, edits)
        self._edited.set()

    async def next_edits(self) -> tuple[bytes, int]:
        """Wait for edits and a connection; return the edits as one update, and the count that is settled with them."""
        while not self._edits or not self.is_connected.is_set():
            await self._edited.wait()
            await self.is_connected.wait()
        edits, self._edits = self._edits, []
        self._edited.clear()
        return merge_updates(edits), self._made

    def settle(self, made: int) -> None:
        """The server has answered all edits up to this count."""
        self._settled = max(self._settled, made)
        self._progress.set()

    def correct(self) -> None:
        """Drop all edits that wait: the server's state replaces ours, and they may depend on an edit that it refused."""
        self._edits = []
        self._edited.clear()
        self._given_up = self._made
        self.corrected.set()

    def refuse(self, error: RoomError) -> None:
        """Report that edits were refused; call it after `correct`."""
        self.error = error
        self.settle(self._given_up)
        if self.document is not None:
            self.document.emit("refused", error)

    @property
    def is_saved(self) -> bool:
        """Whether the server has answered every edit."""
        return self._settled == self._made

    async def wait_settled(self) -> None:
        """Wait until the server has answered the edits made so far; may wait for ever while there is no connection."""
        made = self._made
        while self._settled < made:
            self._progress.clear()
            await self._progress.wait()

    def raise_refusal(self) -> None:
        """Raise the error of a refusal that was not reported yet."""
        error, self.error = self.error, None
        if error is not None:
            raise error
