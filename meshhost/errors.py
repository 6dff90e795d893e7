"""Every error meshhost raises on purpose.

    MeshhostError
    ├── SettingsError                   a setting is missing or wrong
    ├── ProtocolError
    │   ├── LocalProtocolError          this side used the protocol wrongly
    │   └── RemoteProtocolError         the other side did
    ├── TokenError                      a token or key was refused
    │   ├── InvalidApiKeyError
    │   ├── InvalidTokenError
    │   └── ExpiredTokenError
    ├── LifecycleError                  a signal that is not allowed in this state
    ├── CallRefusedError                a service host refused a call; carries the HTTP status
    ├── LLMError                        the model or its gateway failed
    │   └── LLMRefusalError             the model declined to answer
    └── RoomError                       a room operation failed (MeshAgent's RoomException)
        ├── AccessDeniedError           the token does not grant it
        ├── TenantSuspendedError        the operator suspended the tenant
        ├── InvalidRequestError         a field is missing or wrong
        ├── NotFoundError
        ├── AlreadyExistsError
        ├── LimitExceededError          too large, too many
        │   ├── TooLargeError           never accepted, however often it is tried
        │   └── QuotaExceededError      more than the tenant's quota
        ├── StorageFullError            the disk of the room server is full (an OSError, too)
        ├── SecretsLockedError          a secret cannot be read: a key is missing or wrong
        ├── RequestTimeoutError         no reply within the deadline
        ├── ConnectionLostError         the connection ended; whether a request was done is unknown
        ├── RoomRefusedError            the room server refused the connection; carries the HTTP status
        ├── ToolError                   a tool or its provider failed
        ├── LeaseLostError              the message was leased again or settled
        └── MessageFailedError          a message whose result was waited for was not done

An error keeps its facts as attributes and composes its text from them. Texts are shown to users: no secrets, no payloads.
Errors of libraries are translated to these once, where the library is called; only OSError passes through, for a disk or
network that fails. A leaf: it imports nothing, so every module may raise these.
"""

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "CallRefusedError",
    "ConnectionLostError",
    "ExpiredTokenError",
    "InvalidApiKeyError",
    "InvalidRequestError",
    "InvalidTokenError",
    "LLMError",
    "LLMRefusalError",
    "LeaseLostError",
    "LifecycleError",
    "LimitExceededError",
    "LocalProtocolError",
    "MeshhostError",
    "MessageFailedError",
    "NotFoundError",
    "ProtocolError",
    "QuotaExceededError",
    "RemoteProtocolError",
    "RequestTimeoutError",
    "RoomError",
    "RoomRefusedError",
    "SecretsLockedError",
    "SettingsError",
    "StorageFullError",
    "TenantSuspendedError",
    "TokenError",
    "TooLargeError",
    "ToolError",
]


class MeshhostError(Exception):
    """Base of all errors raised on purpose."""


class SettingsError(MeshhostError):
    """A setting is missing or has a wrong value; the text names it and says what to do."""


class ProtocolError(MeshhostError):
    """The wire protocol was violated."""


class LocalProtocolError(ProtocolError):
    """This side tried something the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something the protocol does not allow.

    `close_code` is the WebSocket close code to answer with.
    """

    def __init__(self, text: str, *, close_code: int = 1002) -> None:
        super().__init__(text)
        self.close_code = close_code


class TokenError(MeshhostError):
    """A token or key was refused."""


class InvalidApiKeyError(TokenError):
    """The text is not an API key, or the key is unknown or revoked."""


class InvalidTokenError(TokenError):
    """The token is malformed, wrongly signed or not meant for this."""


class ExpiredTokenError(TokenError):
    """The token was valid, and has expired."""


class LifecycleError(MeshhostError):
    """A signal that is not allowed in the present state; nothing was changed."""


class CallRefusedError(MeshhostError):
    """A service host refused a call.

    `status` is the HTTP status, `retry_after` the seconds after which another try makes sense (None: never).
    """

    def __init__(self, text: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class LLMError(MeshhostError):
    """The model or the connection to it failed. `status` is the HTTP status, if there was one."""

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class LLMRefusalError(LLMError):
    """The model declined to answer; `str()` is its reason."""


class RoomError(MeshhostError):
    """A room operation failed. `code` is the wire's error number (new in meshhost; older clients ignore it)."""

    code = 1008


class AccessDeniedError(RoomError):
    """The token does not grant this operation."""

    code = 1001

    def __init__(self, operation: str, subject: str = "") -> None:
        super().__init__(f"permission denied: {operation}{f' {subject}' if subject else ''}")
        self.operation = operation
        self.subject = subject


class TenantSuspendedError(RoomError):
    """The operator of the room server suspended the tenant; `reason` says why."""

    code = 1001

    def __init__(self, reason: str) -> None:
        super().__init__(f"the tenant is suspended: {reason}")
        self.reason = reason


class InvalidRequestError(RoomError):
    """A field of a request is missing or wrong. `field` names it ("" when the whole is wrong)."""

    code = 1002

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}" if field else expected)
        self.field = field


class NotFoundError(RoomError):
    """The thing asked for does not exist."""

    code = 1003


class AlreadyExistsError(RoomError):
    """The thing to create exists already."""

    code = 1004


class LimitExceededError(RoomError):
    """Too large or too many; the text names the limit."""

    code = 5003


class TooLargeError(LimitExceededError):
    """Larger or more than is ever accepted: to try again is of no use. On the wire it is a LimitExceededError."""


class QuotaExceededError(LimitExceededError):
    """The tenant wants more than its quota allows.

    `quota` names the limit (as `ServerQuota` does; "" when a client read the error from a reply), `retry_after` the seconds
    after which another try makes sense (None: when the tenant has freed something).
    """

    code = 5006

    def __init__(self, text: str, *, quota: str = "", retry_after: float | None = None) -> None:
        super().__init__(text)
        self.quota = quota
        self.retry_after = retry_after


class StorageFullError(RoomError, OSError):
    """The room server's disk has no room for this. What frees room (taking messages, acks, deletions) still works."""

    code = 5005


class SecretsLockedError(RoomError):
    """A secret cannot be encrypted or read now. The text says which key is missing or wrong; it never has the secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the secret cannot be used: {reason}")


class RequestTimeoutError(RoomError):
    """No reply came within the deadline; whether the request was done is unknown."""

    code = 1009


class ConnectionLostError(RoomError):
    """The connection to the room ended.

    `clean` tells whether the other side closed it in order, `close_code` is the code it sent (None: no close frame).
    """

    code = 1009

    def __init__(
        self,
        text: str = "the connection to the room was lost",
        *,
        clean: bool = False,
        close_code: int | None = None,
    ) -> None:
        super().__init__(text)
        self.clean = clean
        self.close_code = close_code

    def again(self) -> "ConnectionLostError":
        """Return a copy to raise: an error that is kept and raised again would hold every frame that it passed through."""
        return type(self)(str(self), clean=self.clean, close_code=self.close_code)


class RoomRefusedError(RoomError):
    """The room server refused the connection with an HTTP status."""

    code = 1001

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status


class ToolError(RoomError):
    """A tool, or the participant that provides it, failed."""

    code = 5004


class LeaseLostError(RoomError):
    """The lease shown is not the message's present lease: it expired and the message was leased again, or is settled."""

    code = 5002


class MessageFailedError(RoomError):
    """The message whose result was waited for ended without one.

    `state` is how it ended (`dead`, `cancelled`, `expired`; None: nothing is known of it any more), `reason` the last error of
    a dead one.
    """

    code = 5007

    def __init__(self, message_id: str, *, state: str | None, reason: str = "") -> None:
        known = f"is {state}" if state else "is not known any more: it was purged, or its queue keeps no results"
        super().__init__(f"message {message_id} {known}{f': {reason}' if reason else ''}")
        self.message_id = message_id
        self.state = state
        self.reason = reason
