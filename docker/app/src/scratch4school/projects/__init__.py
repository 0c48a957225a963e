"""Projects: saving, saved versions, and sharing with groups."""
