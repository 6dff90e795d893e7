"""The LLM gateway of a room server: agents call models with their participant token, and provider keys stay on the server.

`routes.py` mounts it at `/rooms/{room}/v1/*`. `provider.py` says what a provider is and picks one by the requested model;
`providers/` has those that forward to a service, `local/` runs a small model on this machine. `meter.py` measures what
callers use (with `tokens.py`) and writes it to a usage store, with what the operator says that it costs (`prices.py`).
Providers and prices are found by the name of the model (`patterns.py`). `http.py`, `responses.py` and `sse.py` hold the wire
forms.

May import the stores and the leaves below them. Knows no room server: authentication and stores are passed in.
"""
