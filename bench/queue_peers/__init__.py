"""meshhost's queues beside task frameworks and what they stand on: contenders, their brokers, and one way to measure all.

`contenders.py` lists them, `brokers.py` starts what each needs, `measuring.py` runs their programs (`programs/`), `floors.py`
measures what bounds a room's request, `report.py` prints. `bench.queues` and `bench.backlog` are the callers.
"""
