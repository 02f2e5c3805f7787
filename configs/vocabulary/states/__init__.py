"""State models of machines, one TOML file per model; the file's name is the model's."""
