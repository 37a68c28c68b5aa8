"""Whom explorers ask: a table, a model, a server: one file each."""
