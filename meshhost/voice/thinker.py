"""Who holds a voice call: the Protocol `Thinker`, with the circumstances of one call as a `Conversation`.

There are two. `Cascade` (`cascade/`) hears with a speech-to-text model, asks any LLMAdapter, and speaks with a text-to-speech
engine. `Realtime` (`realtime/`) hands the sound to one model that hears and speaks itself. A program chooses one when it
makes its VoiceBot; one thinker serves many calls at once and keeps no state of any.

The rules: `run` returns when the frames of the carrier have ended, and raises LLMError when it cannot go on. When the
caller speaks, the voice stops (barge-in), and the model is told only what the caller has heard. Every word that either side
said is given to the transcript, in order. When `run` is cancelled, it leaves nothing running.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshhost.agents.adapter import ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.room.participants import RemoteParticipant
from meshhost.tools.toolkit import Toolkit
from meshhost.voice.carrier import Carrier
from meshhost.voice.transcript import Transcript

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Conversation", "Thinker"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One voice call, as a thinker sees it.

    `instructions` are the agent's rules, one each. `toolkits` are what the model may call, on behalf of `caller`. `greeting` is
    said when the call begins; with `greeting_prompt` instead the model is asked for it. `voice` names a voice of the
    thinker, None for its default. `call_id` is unique among the voice calls of this process. `chat` is the beginning of
    the conversation in the form of the thinker's adapter, or None for one with the instructions only.
    """

    call_id: str
    room: "RoomClient"
    caller: RemoteParticipant
    carrier: Carrier
    transcript: Transcript
    instructions: Sequence[str] = ()
    toolkits: Sequence[Toolkit] = ()
    tool_adapter: ToolResponseAdapter | None = None
    greeting: str | None = None
    greeting_prompt: str | None = None
    voice: str | None = None
    chat: AgentChatContext | None = None


class Thinker(Protocol):
    """Holds voice calls."""

    async def run(self, conversation: Conversation) -> None:
        """Hold one voice call until its carrier's frames end. Raises LLMError."""
        ...
