"""Types, protocols, registry, config and errors: what every other package speaks in."""
