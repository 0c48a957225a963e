"""The backpack: items that a user takes from one project to another."""
