"""Exploration: what can be reached is found out, kept, returned to, and learned from."""
