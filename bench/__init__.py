"""Benchmarks that compare side by side, in one run, on this machine. `make bench` runs them all.

Figures of shared machines drift: read the ratios. The MeshAgent SDK runs in an environment of its own (`sdk.py`), which is
made on first use; where Python 3.13 is missing its columns stay empty and the table says why.
"""
