"""Hosting: the `ServiceHost`, which turns calls into supervised agents for many tenants.

`service_host.py` is what users touch. `options.py` merges arguments and environment, `assembly.py` makes, starts and stops the
parts. A call comes in at `http`, is checked and answered by `calls`, which starts an agent if `tenants` allows it; `agents` is
the agent's life in its room, here or in a process of `processes`; `observe` measures. `draining.py`, `startup.py` and
`block_response.py` connect several of these; `refusals.py` has the retry times.

It may import everything below `app` except `server`, its sibling: a host knows room servers only through the room client.
Between the packages in here imports go one way: http → calls → tenants → observe → processes → agents.
"""
