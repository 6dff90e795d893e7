"""From a call to an agent: who may call (`guard.py`), whether the call is acceptable (`admission.py`), which agent answers it
(`hosted_agents.py`, by the rules of `route.py`), and which agents live again after a restart (`ledger.py`, `resume.py`).

`http` calls into this package. It may import `agents`, `processes` and `tenants`, and knows nothing of HTTP routing.
"""
