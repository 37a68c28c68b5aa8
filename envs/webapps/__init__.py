"""Small applications in a browser, on a desktop or a phone (`env.py`; the rest is its parts)."""
