"""The command line: one file per command group.

`main.py` puts the groups together, `errors.py` turns whatever went wrong into one line and an exit code, `connect.py` joins a
room as the CLI, `output.py` prints for people or as JSON. A module with commands imports only typer and the standard library
when it is loaded: `--help` must not pay for a web server.
"""
