"""A small model on this machine, so that everything runs without an account or key of a model service.

`provider.py` is the gateway's provider, `stages.py` leads so small a model through tool calls, `process.py` owns the child
process that holds the weights, `runner.py` is that child's program. For demos and tests; its answers are not good enough
for real work.
"""
