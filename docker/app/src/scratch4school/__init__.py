"""Scratch4School's backend: it answers the original's HTTP contract and loses no save under real concurrency."""

# Part of the public repository of the same name; licence AGPL-3.0-or-later.
__version__ = "1.0.0"
