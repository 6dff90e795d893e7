"""What a realtime model is asked for, and the times of its sessions: `RealtimeOptions`; where it is: `Endpoint`.

Both are plain values that a thinker holds for all of its calls. An endpoint is resolved for each session anew, because the
token of a participant may be another one by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yarl import URL

from meshhost.backoff import Backoff
from meshhost.errors import SettingsError
from meshhost.openai.proxy import gateway_url

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["DEFAULT_MODEL", "Endpoint", "RealtimeOptions"]

DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_TRANSCRIPTION = "gpt-transcribe"
_PCM = {"type": "audio/pcm", "rate": 24_000}
# What the API takes of a function; it refuses others.
_OF_A_FUNCTION = ("type", "name", "description", "parameters")


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """What is asked of the provider. Times are in seconds.

    `transcription` recognises the caller's words for the transcript (None: they are not). A turn of the caller ends after
    `silence_ms`. `more` is merged into the session's settings, for what has no name here. A session is renewed after
    `renew_seconds` as soon as nobody speaks, and after `limit_seconds` in any case; the provider ends one after an hour.
    """

    model: str = DEFAULT_MODEL
    voice: str | None = None
    transcription: str | None = DEFAULT_TRANSCRIPTION
    silence_ms: int = 500
    more: Mapping[str, Any] = field(default_factory=dict)
    renew_seconds: float = 55 * 60.0
    limit_seconds: float = 59 * 60.0
    connect_seconds: float = 15.0
    send_seconds: float = 10.0
    fill_seconds: float = 5.0
    tool_seconds: float = 60.0
    max_attempts: int = 6
    backoff: Backoff = Backoff(first_delay=0.25, max_delay=8.0, jitter=0.5)  # noqa: RUF009 - immutable

    def __post_init__(self) -> None:
        if not 0 < self.renew_seconds <= self.limit_seconds:
            raise SettingsError("limit_seconds: expected at least renew_seconds, which is above 0")

    def session(self, *, instructions: str, voice: str | None, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The settings of a session."""
        listens: dict[str, Any] = {
            "format": _PCM,
            "turn_detection": {"type": "server_vad", "silence_duration_ms": self.silence_ms},
        }
        if self.transcription is not None:
            listens["transcription"] = {"model": self.transcription}
        speaks: dict[str, Any] = {"format": _PCM}
        if chosen := voice or self.voice:
            speaks["voice"] = chosen
        settings: dict[str, Any] = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": instructions,
            "audio": {"input": listens, "output": speaks},
        }
        if functions := [_function(tool) for tool in tools if tool.get("type") in ("function", "mcp")]:
            settings["tools"] = functions
        return _merged(settings, self.more)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the provider is: a base URL that ends with the API's version, and a key. Without a URL: the gateway of the room."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def of(self, room: "RoomClient", model: str) -> tuple[URL, dict[str, str]]:
        """The address of a session with this model, and the headers. Raises SettingsError."""
        if self.base_url is None:
            base, key = gateway_url(room.room_url), room.protocol.token
        else:
            base, key = self.base_url, self.api_key or "none"
        url = URL(base.rstrip("/"))
        scheme = {"http": "http", "https": "https", "ws": "http", "wss": "https"}.get(url.scheme)
        if scheme is None or not url.host:
            raise SettingsError("base_url: expected the address of an OpenAI-compatible service, such as https://…/v1")
        return url.with_scheme(scheme) / "realtime" % {"model": model}, {"Authorization": f"Bearer {key}"}


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return dict(tool)
    return {name: tool[name] for name in _OF_A_FUNCTION if name in tool}


def _merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    both = {**settings, **more}
    for name in settings.keys() & more.keys():
        if isinstance(settings[name], Mapping) and isinstance(more[name], Mapping):
            both[name] = _merged(settings[name], more[name])
    return both
