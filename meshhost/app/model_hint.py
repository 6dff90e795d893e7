"""Whether a room server of this process has a model for its agents, said before they fail.

Without a provider's key and without the small local model, everything works until the first message is worked on, which then
fails on each of its attempts. `service run` and `room serve` say so at the start, with the commands that help.
"""

from importlib.util import find_spec

from meshhost.errors import SettingsError
from meshhost.gateway.local.provider import find_model
from meshhost.settings import Settings

__all__ = ["missing_model"]


def missing_model(settings: Settings) -> str | None:
    """Why no model can answer through the room server of this process, and what to do about it; None when one can."""
    if any((settings.openai_api_key, settings.openai_base_url, settings.anthropic_api_key)):
        return None
    try:
        find_model(settings.local_model)
        is_engine = find_spec("xllamacpp") is not None
        reason = "" if is_engine else "the local model's engine is not installed: run `pip install 'meshhost[local]'`"
    except SettingsError as error:
        reason = str(error)
    text = "agents that use a model will fail: OPENAI_API_KEY is not set (`export OPENAI_API_KEY=…`), and"
    return f"{text} {reason}" if reason else None
