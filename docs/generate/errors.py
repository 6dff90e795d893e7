"""The reference of errors, from the classes of `meshhost.errors`.

`WHAT_TO_DO` has the advice for each; an error without advice, or advice without an error, raises `KeyError`.
"""

import inspect
import re

from docs.generate.markdown import code, page, table
from meshhost import errors
from meshhost.errors import MeshhostError, RoomError

__all__ = ["WHAT_TO_DO", "pages"]

WHAT_TO_DO = {
    "SettingsError": "Set what the text names. Programs end with exit code 1.",
    "ProtocolError": "Report it: both sides are ours, or one is not compatible.",
    "LocalProtocolError": "Report it as a bug of meshhost, or of the code that uses `meshhost.protocol`.",
    "RemoteProtocolError": "Look at the other side: its version, a proxy in between.",
    "TokenError": "Use another token or key.",
    "InvalidApiKeyError": "Run `meshhost setup`, or set `MESHHOST_API_KEY` to a key that the room server knows.",
    "InvalidTokenError": "Make the token with a key of this room server's project, for this room.",
    "ExpiredTokenError": "Make a new token.",
    "LifecycleError": "Report it: a bug.",
    "CallRefusedError": "Read the status in [REST](rest.md); after 429 and 503 call again when `Retry-After` has passed.",
    "LLMError": "Look at the provider: key, quota, model name. `Worker` retries the message.",
    "LLMRefusalError": "Change the instructions; the same message is refused again.",
    "RoomError": "Read the text; the room server's log has more when it says so.",
    "AccessDeniedError": "Give the participant's token the grant that the text names.",
    "TenantSuspendedError": "Ask the operator of the room server; `meshhost tenant resume` ends it.",
    "InvalidRequestError": "Correct the field that the text names.",
    "NotFoundError": "Check the name; list what there is with `meshhost queue list`, `storage ls`, `agents list`.",
    "AlreadyExistsError": "Take another name, or say that overwriting is meant.",
    "LimitExceededError": "Try later, or raise the limit in the [room server's file](server-file.md).",
    "TooLargeError": "Send less at once, or raise the limit in the [room server's file](server-file.md); do not try again.",
    "QuotaExceededError": "Free something, or wait; the operator raises the limit with `meshhost tenant limit`.",
    "StorageFullError": "Free space on the room server's disk; let workers empty the queues. Then send again.",
    "SecretsLockedError": "Give the room server the key that its text names, in MESHHOST_SECRETS_KEY behind the new one.",
    "RequestTimeoutError": "Ask again if doing it twice does no harm.",
    "ConnectionLostError": "Ask again if doing it twice does no harm; the client reconnects by itself.",
    "RoomRefusedError": "Read the status: 401 token, 403 room, 503 the server stops.",
    "ToolError": "Read the text, which comes from the tool; see the log of the agent that provides it.",
    "LeaseLostError": "Stop working on the message: another worker has it, or it is settled.",
    "MessageFailedError": "Read the state and the reason; a dead message can be replayed.",
}

_INTRO = """
Every error that meshhost raises on purpose derives from `MeshhostError` and is importable from `meshhost.errors`. MeshAgent's
`RoomException` is our `RoomError`. Texts are for users: they hold no secrets and no payloads.

Errors of a room cross the wire as a text and a code; the client raises the class of that code, so that an error of the
server is the same class at the client. Several classes share a code where older clients know no difference.
"""


def pages() -> dict[str, str]:
    """The page."""
    found = [getattr(errors, name) for name in errors.__all__ if name != "MeshhostError"]
    if different := {cls.__name__ for cls in found} ^ set(WHAT_TO_DO):
        raise KeyError(f"docs/generate/errors.py WHAT_TO_DO and meshhost.errors differ in: {sorted(different)}")
    rows = [(_name(cls), _code(cls), _meaning(cls), WHAT_TO_DO[cls.__name__]) for cls in _as_tree(found)]
    return {
        "reference/errors.md": page("Errors", _INTRO, table(("Error", "Code", "What happened", "What to do"), rows))
    }


def _as_tree(classes: list[type[MeshhostError]]) -> list[type[MeshhostError]]:
    """Each class directly after its base, in the order of the module."""
    order = list(vars(errors))
    return sorted(classes, key=lambda cls: [order.index(base.__name__) for base in reversed(_lineage(cls))])


def _name(cls: type[MeshhostError]) -> str:
    depth = len(_lineage(cls)) - 2
    return "&nbsp;&nbsp;&nbsp;" * depth + code(cls.__name__)


def _lineage(cls: type[MeshhostError]) -> list[type]:
    """The class and its bases of this module; one may also be a built-in error."""
    return [base for base in cls.__mro__ if issubclass(base, MeshhostError)]


def _code(cls: type[MeshhostError]) -> str:
    return str(cls.code) if issubclass(cls, RoomError) else ""


def _meaning(cls: type[MeshhostError]) -> str:
    return re.sub(r"\s+", " ", inspect.getdoc(cls) or "")
