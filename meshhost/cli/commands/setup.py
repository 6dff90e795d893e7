"""`meshhost setup`: makes the local project and its API key, which every other command then uses.

The work is done by `meshhost.app.project.set_up_project`. The key itself is printed only with --json.
"""

from meshhost.cli.options import JsonOption

__all__ = ["setup"]

_LOOK_SECONDS = 2.0


def setup(as_json: JsonOption = False) -> None:
    """Make the local project and its API key, unless they exist.

    Prints where they are stored. With --json the API key is printed too.
    """
    from meshhost.app.project import set_up_project
    from meshhost.cli.output import note, print_json, print_line
    from meshhost.client_settings import read_client_settings

    settings = read_client_settings()
    project, is_new = set_up_project(settings)
    if as_json:
        secret = project.api_key.get_secret_value()
        print_json({"api_url": project.api_url, "project_id": project.project_id, "api_key": secret})
        return
    print_line(f"project {project.project_id} {'stored in' if is_new else 'is in'} {settings.config_dir}/project.json")
    problem = _problem_with(project.api_url, project.project_id, project.api_key.get_secret_value())
    if problem is None:
        print_line("next: `meshhost room serve` starts the room server")
    else:
        note(problem)


def _problem_with(api_url: str, project_id: str, api_key: str) -> str | None:
    """Why the room server that runs at the URL does not take the key; None when it does, or when none runs."""
    from meshhost.cli.connect import ServerAccess, get_json
    from meshhost.errors import RoomError, RoomRefusedError

    url = f"http{api_url.removeprefix('ws')}" if api_url.startswith("ws") else api_url
    access = ServerAccess(url, project_id, api_key)

    try:
        get_json(access, f"/accounts/projects/{project_id}/rooms", timeout=_LOOK_SECONDS, limit=1)
    except RoomRefusedError as error:
        if error.status not in (401, 403):
            return None
        return (
            f"the room server that runs at {url} does not know this key ({error.status}): start it with the same "
            "MESHHOST_CONFIG_DIR or MESHHOST_API_KEY, or set MESHHOST_API_URL to another server and run setup again"
        )
    except RoomError:
        return None
    return None
