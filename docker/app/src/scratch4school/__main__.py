"""`python -m scratch4school`: the command line where the package is on the path but not installed, as in the image."""

from .cli import entry_point

entry_point()
