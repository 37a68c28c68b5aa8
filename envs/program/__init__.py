"""Agents that were written for OpenAI's API, as environments: see `env.py`."""
