"""What starts work from outside, as it is kept: schedules and hooks.

`contract` has the Protocol of the store. The engines' packages implement it, and `meshhost.triggers` says what a trigger means.
"""
