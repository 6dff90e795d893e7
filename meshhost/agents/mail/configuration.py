"""To which SMTP server an agent gives its mail, and under which address it writes.

As in MeshAgent, what a program does not say is read from the environment: SMTP_HOSTNAME, SMTP_PORT, SMTP_USERNAME,
SMTP_PASSWORD and SMTP_LOCAL_HOSTNAME, and MESHHOST_MAIL_DOMAIN for the domain. Without a name and password the participant's
own token is offered, which the submission port of a room server takes; but only to the mail domain, to the room server's host
or to this machine, since a server that gets the token may act as the agent.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshhost.client_settings import MailValues, read_mail_values
from meshhost.errors import InvalidRequestError
from meshhost.loopback import is_loopback
from meshhost.mail.addresses import is_address
from meshhost.mail.delivery import SmtpServer

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["DEFAULT_DOMAIN", "SmtpConfiguration", "mail_domain", "room_address", "smtp_server"]

DEFAULT_DOMAIN = "mail.meshhost.local"
_PORT = 587
_TLS_PORT = 465


@dataclass(frozen=True, slots=True)
class SmtpConfiguration:
    """How mail is sent. What is None is read from the environment. `tls`: see `meshhost.mail.delivery.SmtpServer`.

    With `verify` false the server's certificate is not checked.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    port: int | None = None
    hostname: str | None = None
    local_hostname: str | None = None
    tls: str | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if self.tls not in (None, "always", "required", "auto", "never"):
            raise InvalidRequestError("tls", f"expected always, required, auto or never, got {self.tls!r}")


def mail_domain(domain: str | None = None) -> str:
    """Return this domain, else that of the environment, else DEFAULT_DOMAIN."""
    return domain or read_mail_values().domain or DEFAULT_DOMAIN


def room_address(project_id: str | None = None, room_name: str = "", domain: str | None = None) -> str:
    """Return the mail address of a room. Raises InvalidRequestError when its name gives none."""
    local = ".".join(each for each in (room_name, project_id) if each)
    address = f"{local}@{mail_domain(domain)}".lower()
    if not is_address(address):
        raise InvalidRequestError("room_name", f"expected the name of a room, got {room_name[:100]!r}")
    return address


def smtp_server(given: SmtpConfiguration | None, *, domain: str, room: "RoomClient") -> SmtpServer:
    """Return the server for an agent in `room`. Raises SettingsError for a value of the environment that is wrong."""
    smtp, values = given or SmtpConfiguration(), read_mail_values()
    hostname = smtp.hostname or values.hostname or domain
    port = smtp.port or values.port or _PORT
    password = smtp.password or values.password
    needs_login = password is not None or smtp.username is not None
    if password is None and (smtp.username or values.username) is None and _is_ours(hostname, domain, room):
        password = getattr(room.protocol, "token", None)
    return SmtpServer(
        hostname=hostname,
        port=port,
        username=smtp.username or values.username or str(room.local_participant.get_attribute("name") or ""),
        password=password,
        local_hostname=smtp.local_hostname or values.local_hostname,
        tls=_tls(smtp, port),
        verify=smtp.verify,
        needs_login=needs_login,
    )


def _tls(smtp: SmtpConfiguration, port: int) -> "_Tls":
    return smtp.tls or ("always" if port == _TLS_PORT else "auto")  # type: ignore[return-value]


def _is_ours(hostname: str, domain: str, room: "RoomClient") -> bool:
    server = urlsplit(str(getattr(room.protocol, "url", ""))).hostname
    return hostname.lower() in (domain.lower(), server) or is_loopback(hostname)


if TYPE_CHECKING:
    from typing import Literal

    _Tls = Literal["always", "required", "auto", "never"]
    _ = MailValues
