"""BrowserGym's tasks (`env.py`; the other modules are its parts)."""
