#!/bin/sh
# Playwright's driver in a session of its own: Ctrl-C in a terminal reaches every process of the
# foreground, and a driver that is gone before its pages are given back leaves their calls in the air.
exec setsid "$AGENTRL_NODE" "$@"
