"""What the tests of a program that is built on meshhost need.

`clock` is a clock that the test moves; `scripted_llm` a model that answers what the test says; `scripted_upstream` a provider
behind the OpenAI client, for agents that use a real adapter; `agents` are agents that misbehave in one way each; `server` is a
real room server in the test's process. Doubles that only meshhost's own tests need are in `tests/doubles`. May import
everything but `cli`; nothing in `meshhost` imports it.
"""
