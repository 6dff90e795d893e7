"""The names of `meshagent.api.keys`: API keys and their text.

For MeshAgent programs, which import from this path after the package is renamed. It re-exports only: the code is in the package
that owns it. The names may grow, but none may go or move.
"""

from meshhost.identity.keys import ApiKey, encode_api_key, parse_api_key

__all__ = ["ApiKey", "encode_api_key", "parse_api_key"]
