"""Getting configured: look at equipment, describe it, and see that what is read is right."""
