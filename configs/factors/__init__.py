"""Emission factors, one TOML file per publication and data year."""
