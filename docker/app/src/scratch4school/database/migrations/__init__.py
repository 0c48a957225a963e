"""The schema's history, inside the package, so that a release always has the migrations that it needs."""
