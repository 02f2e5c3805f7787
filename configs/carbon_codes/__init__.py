"""Carbon efficiency codes (碳效码): levels and grades, one TOML file per method."""
