"""Every distinct token of a batch computed once: rows as one packed tree of tokens."""
