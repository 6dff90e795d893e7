"""The names that MeshAgent programs import from `meshagent.livekit.agents.voice`; the code is in `meshhost.voice`.

The constructor takes the arguments of both generations, by position too: the fourth is `labels` in SDK 0.6 (a list) and `voice`
in 0.56 (a text). What belongs to LiveKit's own agent framework is not called here, because a thinker has its place:
`create_agent`, `make_function_tools` and `init_session`. A program that overrides them is told so in the log.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from meshhost import voice
from meshhost.agents.adapter import LLMAdapter
from meshhost.errors import InvalidRequestError, SettingsError
from meshhost.openai.tools import OpenAIResponsesAdapter
from meshhost.voice import Cascade, Connector, MessageConnector, Thinker, VoiceBotContext, VoiceConnection
from meshhost.voice.carriers.livekit import LivekitConnector
from meshhost.voice.realtime import Realtime

__all__ = ["VoiceBot", "VoiceBotContext", "VoiceConnection", "Voicebot"]

logger = logging.getLogger(__name__)

_COMMON = ("auto_greet_message", "auto_greet_prompt", "tool_adapter", "toolkits", "requires")
# What follows `description` by position.
_ORDER_06 = ("labels", "rules", *_COMMON)
_ORDER_056 = ("voice", "annotations", "rules", *_COMMON, "client_rules")
_NOT_CALLED = ("create_agent", "init_session", "make_function_tools")


class VoiceBot(voice.VoiceBot):
    """MeshAgent's VoiceBot. All arguments of `meshhost.voice.VoiceBot` may be given by name as well.

    Without a `thinker` or an `llm_adapter` it has the one of `default_thinker`. `annotations` may be given, and are not used.
    Raises TypeError for arguments that neither generation has.
    """

    def __init__(
        self,
        name: str,
        title: str | None = None,
        description: str | None = None,
        *others: Any,
        annotations: Mapping[str, Any] | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        given = _by_name(others)
        if twice := sorted(given.keys() & options.keys()):
            raise TypeError(f"VoiceBot got several values for argument {twice[0]!r}")
        options |= given
        options.pop("annotations", None)
        options.setdefault("connectors", default_connectors())
        if not {"thinker", "llm_adapter"} & options.keys():
            options["thinker"] = default_thinker()
        super().__init__(name=name, title=title, description=description, **options)
        for method in _NOT_CALLED:
            if hasattr(type(self), method):
                logger.warning("a method of LiveKit's framework is not called", extra={"agent": name, "method": method})


Voicebot = VoiceBot


def default_thinker(llm_adapter: LLMAdapter[Any] | None = None, *, model: str | None = None) -> Thinker:
    """Return the thinker of a VoiceBot that is given none; the cascade is around `llm_adapter`, and `model` is a realtime one.

    That is the offline cascade where the extra `voice` is installed, and else a realtime model of the room's gateway.
    """
    try:
        return Cascade(llm_adapter=llm_adapter or OpenAIResponsesAdapter())
    except SettingsError:
        return Realtime() if model is None else Realtime(model=model)


def default_connectors() -> list[Connector]:
    """Return the ways of sound of a VoiceBot that is given none.

    MeshAgent's clients name none and join LiveKit, so it goes first where its library is installed; ours name theirs.
    """
    first: list[Connector] = [LivekitConnector()] if find_spec("livekit") is not None else []
    return [*first, MessageConnector()]


def _by_name(others: tuple[Any, ...]) -> dict[str, Any]:
    """Name the arguments behind `description`, by the generation that they fit."""
    if not others:
        return {}
    is_newer = isinstance(others[0], str) or (others[0] is None and _second_is_newer(others))
    order = _ORDER_056 if is_newer else _ORDER_06
    if len(others) > len(order):
        raise TypeError(f"VoiceBot takes {3 + len(order)} positional arguments, {3 + len(others)} were given")
    if not isinstance(others[0], str | list | tuple | None):
        raise InvalidRequestError("labels", f"expected a list of labels, or the name of a voice, got {others[0]!r}")
    return dict(zip(order, others, strict=False))


def _second_is_newer(others: tuple[Any, ...]) -> bool:
    # None says nothing. In 0.56 annotations come next, an object; in 0.6 rules, a list, and the newer one has two more.
    return (len(others) > 1 and isinstance(others[1], Mapping)) or len(others) > len(_ORDER_06)
