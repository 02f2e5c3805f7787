"""Electricity tariff periods, one TOML file per notice."""
