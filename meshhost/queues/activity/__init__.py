"""What happens in queues, as numbers: reported by `QueueService` to observers, kept as series of points for people.

`observer.py` says what is reported; `points.py` packs points into rings of a fixed size, and `series.py` samples the queues and
keeps the rings. Nothing here changes a queue. May import the contracts of `stores`, and the clock.
"""
