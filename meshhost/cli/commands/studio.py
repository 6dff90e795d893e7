"""`meshhost studio`: prints a link that signs a browser in to Studio, the web page of a room server."""

from __future__ import annotations

from typing import Annotated

import typer

from meshhost.cli.options import JsonOption

__all__ = ["studio"]


def studio(
    operator: Annotated[
        bool, typer.Option("--operator", help="Sign in as the operator of the room server, who manages tenants.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a link that opens Studio in a browser.

    It signs in with the rights of your API key. It works once, within ten minutes; the key itself is not in it.
    """
    from meshhost.app.operator import find_operator_key
    from meshhost.app.project import api_key_of
    from meshhost.cli.connect import send_json, server_url
    from meshhost.cli.log_output import log_for_command
    from meshhost.cli.managing import NO_OPERATOR_KEY
    from meshhost.cli.output import print_json, print_line
    from meshhost.client_settings import read_client_settings
    from meshhost.errors import SettingsError

    log_for_command()
    settings = read_client_settings()
    key = find_operator_key(settings) if operator else api_key_of(settings)
    if key is None:
        raise SettingsError(NO_OPERATOR_KEY)
    made = send_json(server_url(), key, "POST", "/studio/api/link")
    if as_json:
        print_json(made)
    else:
        print_line(str(made["url"]))
