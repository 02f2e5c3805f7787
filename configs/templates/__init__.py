"""Texts that `init` and `policy new` fill in."""
