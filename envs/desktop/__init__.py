"""A small application on a desktop of its own (`env.py`; the other modules are its parts)."""
