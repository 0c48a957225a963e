"""The HTTP contract; a package, so that its conftest does not collide with that of all tests."""
