"""The Berkeley Function Calling Leaderboard (`env.py`; the other modules are its parts)."""
