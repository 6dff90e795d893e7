"""Agents that run in processes of their own, so that one which blocks, leaks or crashes harms no other.

Belongs here: starting such processes, talking to them, watching and ending them. Does not belong here: which agents have a
process (`hosting.calls`), when they are restarted (`supervision`), how much memory a tenant may use (`hosting.tenants`).

The modules of this folder run in the host: `pool` hands out processes, `process` is one of them, `template` forks them,
`interpreter` boots them, `watch` looks at them each second, `supervised` makes one a supervised child. Everything in `child/`
runs inside a process that the host has started, never in a host. Both sides share `messages` (what they send each other) and
`linux` (system calls).

May import: `hosting.calls`, `hosting.tenants`, `supervision` and what is below them; not the host itself.
"""
