"""Backups: create them and read them back, restore them, and test that in a drill."""
