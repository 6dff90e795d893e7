"""Which role each REST route needs: one table, read by `Access` for every request with an API key.

A viewer reads; a developer also uses rooms, tokens and queues; an admin also manages keys; and what manages tenants is for the
operator, who has a key of its own. The table is by method and path as the route was registered. A route that is missing here is
for the operator only, so that a forgotten line shuts a door instead of leaving one open; a test compares the table with the
routes that a running server has.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from meshhost.identity.roles import Role

__all__ = ["NEEDED", "OPERATOR", "needed_for"]

OPERATOR: Final = "operator"

_PROJECT = "/accounts/projects/{project}"
_TENANT = "/tenants/{tenant}"
_ROOM = "/rooms/{room}"

_QUEUES = "/rooms/{room}/queues"
# The spec of a service may hold values of variables.
_SERVICES_OF = (_PROJECT, f"{_PROJECT}/rooms/{{room}}")

NEEDED: Mapping[tuple[str, str], Role | str] = {
    ("GET", _QUEUES): Role.VIEWER,
    ("GET", f"{_ROOM}/queue-series"): Role.VIEWER,
    ("GET", f"{_QUEUES}/{{queue}}/series"): Role.VIEWER,
    ("GET", f"{_QUEUES}/{{queue}}/messages"): Role.VIEWER,  # without contents
    ("GET", f"{_QUEUES}/{{queue}}/messages/{{id}}"): Role.VIEWER,
    ("GET", f"{_QUEUES}/{{queue}}/messages/{{id}}/body"): Role.DEVELOPER,
    ("GET", f"{_QUEUES}/{{queue}}/messages/{{id}}/result"): Role.VIEWER,
    ("DELETE", f"{_QUEUES}/{{queue}}/messages/{{id}}"): Role.DEVELOPER,
    ("GET", f"{_QUEUES}/{{queue}}/settings"): Role.VIEWER,
    ("PATCH", f"{_QUEUES}/{{queue}}/settings"): Role.DEVELOPER,
    ("POST", f"{_QUEUES}/{{queue}}/pause"): Role.DEVELOPER,
    ("POST", f"{_QUEUES}/{{queue}}/resume"): Role.DEVELOPER,
    ("POST", f"{_QUEUES}/{{queue}}/purge"): Role.DEVELOPER,
    ("POST", f"{_QUEUES}/{{queue}}/replay"): Role.DEVELOPER,
    ("GET", "/accounts/projects"): Role.VIEWER,
    ("GET", f"{_PROJECT}/api-keys"): Role.VIEWER,
    ("POST", f"{_PROJECT}/api-keys"): Role.ADMIN,
    ("DELETE", f"{_PROJECT}/api-keys/{{id}}"): Role.ADMIN,
    ("GET", f"{_PROJECT}/rooms"): Role.VIEWER,
    ("POST", f"{_PROJECT}/rooms"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/rooms/{{name}}"): Role.VIEWER,
    ("PUT", f"{_PROJECT}/rooms/{{id}}"): Role.DEVELOPER,
    ("DELETE", f"{_PROJECT}/rooms/{{id}}"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/rooms/{{name}}/status"): Role.VIEWER,
    ("POST", f"{_PROJECT}/rooms/{{name}}/connect"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/rooms/{{name}}/calls"): Role.VIEWER,
    ("GET", f"{_PROJECT}/sessions/active"): Role.VIEWER,
    ("POST", f"{_PROJECT}/rooms/{{name}}/scheduled-tasks"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/scheduled-tasks"): Role.VIEWER,
    ("PUT", f"{_PROJECT}/scheduled-tasks/{{id}}"): Role.DEVELOPER,
    ("DELETE", f"{_PROJECT}/scheduled-tasks/{{id}}"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/scheduled-tasks/{{id}}/runs"): Role.VIEWER,
    ("POST", f"{_PROJECT}/mailboxes"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/mailboxes"): Role.VIEWER,
    ("GET", f"{_PROJECT}/mailboxes/{{address}}"): Role.VIEWER,
    ("PUT", f"{_PROJECT}/mailboxes/{{address}}"): Role.DEVELOPER,
    ("DELETE", f"{_PROJECT}/mailboxes/{{address}}"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/mailboxes/{{address}}/deliveries"): Role.VIEWER,
    ("GET", f"{_PROJECT}/rooms/{{name}}/mailboxes"): Role.VIEWER,
    ("POST", f"{_PROJECT}/secrets"): Role.ADMIN,
    ("GET", f"{_PROJECT}/secrets"): Role.VIEWER,  # names and times
    ("PUT", f"{_PROJECT}/secrets/{{id}}"): Role.ADMIN,
    ("DELETE", f"{_PROJECT}/secrets/{{id}}"): Role.ADMIN,
    **{(method, f"{where}/services"): Role.DEVELOPER for where in _SERVICES_OF for method in ("GET", "POST")},
    **{(m, f"{where}/services/{{id}}"): Role.DEVELOPER for where in _SERVICES_OF for m in ("GET", "PUT", "DELETE")},
    **{("GET", f"{where}/services/by-name/{{id}}"): Role.DEVELOPER for where in _SERVICES_OF},
    ("POST", f"{_PROJECT}/webhooks"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/webhooks"): Role.DEVELOPER,  # a payload may have contents
    ("GET", f"{_PROJECT}/webhooks/{{id}}"): Role.DEVELOPER,
    ("PUT", f"{_PROJECT}/webhooks/{{id}}"): Role.DEVELOPER,
    ("DELETE", f"{_PROJECT}/webhooks/{{id}}"): Role.DEVELOPER,
    ("GET", f"{_PROJECT}/usage"): Role.VIEWER,
    ("GET", f"{_PROJECT}/queue-series"): Role.VIEWER,
    ("*", f"{_PROJECT}/{{what}}"): Role.VIEWER,  # answered with 501
    ("*", f"{_PROJECT}/{{what}}/{{rest}}"): Role.VIEWER,
    ("POST", f"{_ROOM}/queues/{{queue}}/messages"): Role.DEVELOPER,
    **{(method, f"{_ROOM}/mcp"): Role.DEVELOPER for method in ("POST", "GET", "DELETE")},
    ("GET", "/link"): Role.DEVELOPER,
    ("GET", "/schedules"): Role.VIEWER,
    ("POST", "/schedules/preview"): Role.VIEWER,  # changes nothing
    ("POST", f"{_ROOM}/schedules"): Role.DEVELOPER,
    ("GET", f"{_ROOM}/schedules"): Role.VIEWER,
    ("GET", f"{_ROOM}/schedules/{{id}}"): Role.VIEWER,
    ("PATCH", f"{_ROOM}/schedules/{{id}}"): Role.DEVELOPER,
    ("DELETE", f"{_ROOM}/schedules/{{id}}"): Role.DEVELOPER,
    ("POST", f"{_ROOM}/schedules/{{id}}/run"): Role.DEVELOPER,
    ("POST", f"{_ROOM}/hooks"): Role.DEVELOPER,
    ("GET", f"{_ROOM}/hooks"): Role.DEVELOPER,  # the address of a hook is half of a secret
    ("GET", f"{_ROOM}/hooks/{{id}}"): Role.DEVELOPER,
    ("DELETE", f"{_ROOM}/hooks/{{id}}"): Role.DEVELOPER,
    ("POST", f"{_ROOM}/hooks/{{id}}/secret"): Role.DEVELOPER,
    ("POST", f"{_ROOM}/hooks/{{id}}/test"): Role.DEVELOPER,
    ("GET", "/overview"): Role.VIEWER,
    ("GET", f"{_ROOM}/events"): Role.VIEWER,
    ("GET", "/usage"): OPERATOR,
    ("GET", "/hosts"): OPERATOR,
    **{(method, "/hosts/{host}/{path}"): OPERATOR for method in ("GET", "POST", "DELETE")},
    ("GET", "/search"): Role.VIEWER,  # without files
    ("GET", f"{_ROOM}/log"): Role.DEVELOPER,  # entries may have contents
    ("GET", f"{_ROOM}/traces"): Role.DEVELOPER,  # as the log
    ("GET", f"{_ROOM}/traces/{{trace}}"): Role.DEVELOPER,
    ("POST", "/studio/api/link"): Role.VIEWER,
    ("POST", "/studio/api/rooms/{room}/token"): Role.DEVELOPER,
    ("POST", "/tenants"): OPERATOR,
    ("GET", "/tenants"): OPERATOR,
    ("GET", _TENANT): Role.VIEWER,
    ("PATCH", _TENANT): OPERATOR,
    ("PATCH", f"{_TENANT}/quota"): OPERATOR,
    ("DELETE", _TENANT): OPERATOR,
    ("DELETE", f"{_TENANT}/rooms/{{room_name}}"): Role.ADMIN,
    ("GET", f"{_TENANT}/archive"): OPERATOR,
    ("PUT", f"{_TENANT}/archive"): OPERATOR,
    ("GET", f"{_TENANT}/rooms/{{room_name}}/archive"): Role.ADMIN,
    ("PUT", f"{_TENANT}/rooms/{{room_name}}/archive"): Role.ADMIN,
    ("POST", f"{_TENANT}/suspend"): OPERATOR,
    ("POST", f"{_TENANT}/resume"): OPERATOR,
    ("GET", f"{_TENANT}/keys"): Role.VIEWER,
    ("POST", f"{_TENANT}/keys"): Role.ADMIN,
    ("DELETE", f"{_TENANT}/keys/{{id}}"): Role.ADMIN,
}


def needed_for(request: web.Request) -> Role | str:
    """Return the role that the route of the request needs, or OPERATOR."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical
    method = "GET" if request.method == "HEAD" else request.method
    return NEEDED.get((method, path)) or NEEDED.get(("*", path)) or OPERATOR
