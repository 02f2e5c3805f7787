"""The read API: what the brain platform and the cockpit page ask."""
