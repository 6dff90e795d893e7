"""Benchmarks that compare side by side, in one run, on one machine. `make bench` runs them.

`queues`, `room` and `hosting` compare meshhost with the MeshAgent SDK (and LiveKit Agents), `soak` measures many agents for
long, `compare` measures two checkouts of meshhost; `fuzz` attacks a host. Each module says what it measures and how. Figures of
a shared machine drift, so read the ratios. The SDK runs in an environment of its own (`sdk`), which is made on first use;
without Python 3.13 its columns stay empty, and the table says why.
"""
