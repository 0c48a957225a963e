"""Importing rows: from a database of the original backend, or from one of ours on the other engine."""
