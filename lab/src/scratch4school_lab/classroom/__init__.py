"""A hundred simulated pupils as load, and the ledger that tells whether a promise was broken."""
