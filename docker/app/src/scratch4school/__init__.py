"""Scratch4School's backend: the HTTP contract of the original, with no save lost under real concurrency."""

# Part of the public repository of the same name; licence AGPL-3.0-or-later.
__version__ = "1.0.0"
