"""The publishable-data policy: language, compiler, gate and transforms."""
