"""A hundred simulated pupils as load, and the save record that tells whether a promise was broken."""
