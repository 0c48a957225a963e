"""Assets: costumes, sounds and the like, each stored once under the hash of its content."""
