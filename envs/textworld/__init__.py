"""Games made by TextWorld (`env.py`; the other modules are its parts)."""
