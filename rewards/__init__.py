"""Rewards, one file each, imported as `agentrl.rewards`."""
