"""Embedders: what turns a text into a vector, so that near vectors mean like texts.

`OpenAIEmbedder` asks a model: by a client that the program passes, else through the LLM gateway of the room, which holds the
provider's key. `HashingEmbedder` needs no model and no network, and knows no meaning: texts are near each other that share
words and spellings. It is for tests, for offline use, and beside a search by text.
"""

import asyncio
import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import aiohttp

from meshhost.errors import InvalidRequestError, LLMError, SettingsError
from meshhost.room.services.gateway import gateway_url

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = [
    "Embedder",
    "HashingEmbedder",
    "OpenAIEmbedder",
    "open_ai_embedding_3_large",
    "open_ai_embedding_3_small",
    "open_ai_embedding_ada_2",
]

_SECONDS = aiohttp.ClientTimeout(total=60)
_AT_ONCE = 64
_WORD = re.compile(r"\w+")
_GRAM = 3


class Embedder:
    """Turns texts into vectors of `size` numbers; override `embed`. A text has at most `max_length` tokens."""

    def __init__(self, *, size: int, max_length: int) -> None:
        if size < 1 or max_length < 1:
            raise InvalidRequestError("size", "expected a size and a max_length of at least 1")
        self.size = size
        self.max_length = max_length

    def use(self, room: "RoomClient") -> None:
        """Called by agents and tools before they embed in a room. Override it if the embedder needs the room."""

    async def embed(self, *, text: str) -> list[float]:
        """Return the vector of a text. Raises LLMError."""
        raise NotImplementedError

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vectors of texts; override it where several at once are cheaper."""
        return [await self.embed(text=text) for text in texts]


class OpenAIEmbedder(Embedder):
    """Asks a model of OpenAI, or another one by the same API.

    `openai` is a client of the library openai. Without one the gateway of the room is asked, with the agent's own token: its
    scope must permit that, and the room server must know a provider for the model.
    """

    def __init__(self, *, size: int, max_length: int, model: str, openai: Any = None) -> None:
        super().__init__(size=size, max_length=max_length)
        self._openai = openai
        self._model = model
        self._room: RoomClient | None = None

    def use(self, room: "RoomClient") -> None:
        """See Embedder."""
        self._room = room

    async def embed(self, *, text: str) -> list[float]:
        """See Embedder. Raises SettingsError without a client and a room."""
        [vector] = await self.embed_many([text])
        return vector

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """See Embedder."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            found = await (self._by_gateway(some) if self._openai is None else self._by_client(some))
            if len(found) != len(some) or any(len(vector) != self.size for vector in found):
                raise LLMError(f"model {self._model!r} gave no vectors of {self.size} numbers")
            vectors += found
        return vectors

    async def _by_client(self, texts: list[str]) -> list[list[float]]:
        answer = await self._openai.embeddings.create(input=texts, model=self._model, encoding_format="float")
        return [list(each.embedding) for each in answer.data]

    async def _by_gateway(self, texts: list[str]) -> list[list[float]]:
        room = self._room
        if room is None:
            raise SettingsError("OpenAIEmbedder: pass a client as `openai`, or use it by an agent or tool in a room")
        body = {"input": texts, "model": self._model, "encoding_format": "float"}
        headers = {"Authorization": f"Bearer {room.protocol.token}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=_SECONDS, headers=headers) as http,
                http.post(f"{gateway_url(room.room_url)}/embeddings", json=body) as answer,
            ):
                if answer.status != 200:
                    raise LLMError(f"model {self._model!r} answered with status {answer.status}", status=answer.status)
                data = (await answer.json(content_type=None))["data"]
                return [[float(number) for number in each["embedding"]] for each in data]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LLMError(f"model {self._model!r} could not be asked: {type(error).__name__}") from None
        except (KeyError, TypeError, ValueError):
            raise LLMError(f"model {self._model!r} gave no vectors") from None


class HashingEmbedder(Embedder):
    """Counts words of a text, pairs of words and groups of three letters, each in the place of the vector that its hash names.

    The same text has the same vector on every machine. It finds words, parts of words and misspelt words; of what a text
    means it knows nothing: "car" and "automobile" are as far from each other as any two words.
    """

    def __init__(self, *, size: int = 512, max_length: int = 8192) -> None:
        super().__init__(size=size, max_length=max_length)

    async def embed(self, *, text: str) -> list[float]:
        """See Embedder."""
        return await asyncio.to_thread(self._embedded, text)

    async def embed_many(self, texts: Sequence[str]) -> list[list[float]]:
        """See Embedder."""
        return await asyncio.to_thread(lambda: [self._embedded(text) for text in texts])

    def _embedded(self, text: str) -> list[float]:
        vector = [0.0] * self.size
        for feature, count in _features(text).items():
            digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
            # The sign keeps features that share a place from adding up.
            weight = (1 + math.log(count)) * (0.4 if feature.startswith("#") else 1.0)
            vector[int.from_bytes(digest[:6], "big") % self.size] += weight if digest[7] & 1 else -weight
        length = math.sqrt(sum(number * number for number in vector))
        return [number / length for number in vector] if length else vector


def _features(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower())
    features = Counter(words)
    features.update(f"{one} {other}" for one, other in pairwise(words))
    for word in words:
        padded = f"^{word}$"
        features.update(f"#{padded[start : start + _GRAM]}" for start in range(len(padded) - _GRAM + 1))
    return features


def open_ai_embedding_3_small() -> OpenAIEmbedder:
    """Return an embedder by text-embedding-3-small."""
    return OpenAIEmbedder(model="text-embedding-3-small", max_length=8191, size=1536)


def open_ai_embedding_3_large() -> OpenAIEmbedder:
    """Return an embedder by text-embedding-3-large."""
    return OpenAIEmbedder(model="text-embedding-3-large", max_length=8191, size=3072)


def open_ai_embedding_ada_2() -> OpenAIEmbedder:
    """Return an embedder by text-embedding-ada-002."""
    return OpenAIEmbedder(model="text-embedding-ada-002", max_length=8191, size=1536)
