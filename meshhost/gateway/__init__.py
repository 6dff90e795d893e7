"""The LLM gateway: agents in a room talk to models with their participant token, provider keys stay here.

`routes.py` mounts it at `/rooms/{room}/v1/*`; `provider.py` says what a provider is and picks one by the requested model;
`openai_compatible.py` forwards to a service that speaks the OpenAI API, `local.py` runs a small model on this machine;
`meter.py` counts requests, tokens and seconds; `responses.py` and `sse.py` hold the wire forms.
"""
