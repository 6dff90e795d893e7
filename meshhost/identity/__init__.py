"""The identity of a participant and its rights: tokens, keys and grants. Pure code and values; may import the leaves and
`settings`.

A **tenant** owns rooms, agents and keys (MeshAgent: project). An **API key** belongs to a tenant; its secret signs
**participant tokens** (`tokens.py`), which prove an identity and carry grants (`grants.py`): the room that may be joined,
the role, and the `ApiScope` of room operations. `keys.py` reads and writes the text form of API keys.

Field by field this is the MeshAgent form, so that tokens and keys of either side are accepted by the other
(room-protocol §7). Stricter than the SDK: tokens expire unless asked not to, only HS256 is accepted, paths are matched by
whole segments, and versions are compared as numbers.
"""
