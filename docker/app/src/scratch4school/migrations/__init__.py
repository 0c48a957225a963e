"""The schema's history. It lies inside the package so that a release always carries the migrations it needs."""
