"""What may leave, and how it is sealed."""
