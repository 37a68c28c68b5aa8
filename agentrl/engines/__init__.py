"""Engines sample tokens; `policy.py` loads the model that they sample from."""
