"""Stores that keep everything in this process: the shortest reading of each contract, and fast doubles for tests.

They keep the contracts except durability: what they hold lives as long as the object, also while closed. May import the
contracts and the leaves only.
"""
