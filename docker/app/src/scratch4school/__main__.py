"""`python -m scratch4school`: the command line where the package is only on the path, as in its image and its tests."""

from .cli import entry_point

entry_point()
