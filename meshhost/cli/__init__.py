"""The command line `meshhost`.

`main` puts the command groups of `commands` together, `errors` turns every error into one line and an exit code, `connect`
joins a room as the CLI, `output` prints for people or as JSON. Commands read arguments and print; the work is done by other
packages.

Commands of a room use no pydantic, no aiohttp and no OpenTelemetry, which take longer to load than such a command works: they
read the environment by `client_settings`, sign by `identity.signing`, ask by `rest`, and their values are converted by
`conversion`. A module that is loaded for `--help` imports only typer and the standard library; everything else is imported
inside functions. So the help of a command does not load a web server, and a command loads only what it needs. A test checks
`sys.modules`.
"""
