"""What scripts/classroom is made of: a school class as load, and the ledger that says whether anything was lost."""
