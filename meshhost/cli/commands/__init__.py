"""One module, or package, per command group. Each exports a typer app, or the function of a single command."""
