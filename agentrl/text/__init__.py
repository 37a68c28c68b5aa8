"""From messages to token ids and from replies to actions."""
