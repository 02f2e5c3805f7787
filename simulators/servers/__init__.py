"""Servers of others as processes to be started, killed and started again: broker and store."""
