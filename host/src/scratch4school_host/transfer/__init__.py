"""Imports an existing installation, and migrates between the two engines.

The application reads and writes the rows, in a container of its image. This package copies the files and runs the steps
in their order. It never writes to the source.
"""
