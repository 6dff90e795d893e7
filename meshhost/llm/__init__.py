"""The APIs of models as data: requests and streamed answers, translated between what callers and providers speak.

The Responses API is the form in the middle. A *dialect* (`dialects.py`) is an API that a provider speaks: it writes a request
of the Responses API in that API's form and reads the answer back as events of the Responses API (`chat_request.py`,
`chat_answer.py`, `messages_request.py`, `messages_answer.py`). A *caller form* (`caller_forms.py`) is the opposite: an API that
a caller speaks (`chat_caller.py`, `messages_caller.py`). `builder.py` builds the events of one answer, `sse.py` cuts a stream
into them.

No I/O: bytes and dicts in, dicts and bytes out, so that each rule is tested without a socket. The gateway uses it for providers
that do not speak what the caller does; the adapters of `meshhost.openai` and `meshhost.anthropic` use it in the agent.
"""
