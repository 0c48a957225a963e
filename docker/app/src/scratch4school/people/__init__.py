"""Users and groups: the user's own account, and the pupils that a teacher sees."""
