"""Tasks on an Android emulator (`env.py`; the other modules are its parts)."""
