"""One module for each command in scripts/: its options, its refusals, its exit status."""
