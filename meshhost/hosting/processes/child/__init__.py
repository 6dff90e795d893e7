"""What runs inside a process that a host has started for an agent: nothing in this folder runs in a host.

`boot` runs the program again, `agent` is its role when it is an agent's process, and `template` when it is one that is forked;
`fork_safety` decides whether a template may be forked and `fork` does it. `channel` and `log_handler` connect both to the host.
`ServiceHost` asks `roles.current_role()`: that is how the program's own `host.run()` becomes the life of one agent.

May import: `hosting.processes.messages` and `linux`, `hosting.calls`, and what is below them; not the host's side.
"""
