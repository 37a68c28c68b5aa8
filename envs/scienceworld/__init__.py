"""ScienceWorld's simulator (`env.py`; the other modules are its parts)."""
