"""One module for each revision; its `kind` says whether it is an expand or a contract."""
