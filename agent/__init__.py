"""From device to broker."""
