"""Shipped configuration: examples, device profiles, emission factors."""
