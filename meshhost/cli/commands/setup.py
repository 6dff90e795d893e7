"""`meshhost setup`: makes the local project and its API key, which every other command then uses.

The work is done by `meshhost.app.project.set_up_project`. The key itself is printed only with --json.
"""

from meshhost.cli.options import JsonOption

__all__ = ["setup"]


def setup(as_json: JsonOption = False) -> None:
    """Make the local project and its API key, unless they exist.

    Prints where they are stored. With --json the API key is printed too.
    """
    from meshhost.app.project import set_up_project
    from meshhost.cli.output import print_json, print_line
    from meshhost.settings import read_settings

    settings = read_settings()
    project, is_new = set_up_project(settings)
    if as_json:
        secret = project.api_key.get_secret_value()
        print_json({"api_url": project.api_url, "project_id": project.project_id, "api_key": secret})
        return
    print_line(f"project {project.project_id} {'stored in' if is_new else 'is in'} {settings.config_dir}/project.json")
    print_line("next: `meshhost room serve` starts the room server")
