"""The uploads folder."""
