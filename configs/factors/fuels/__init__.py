"""Sets of fuel defaults; one inventory uses one set and never mixes them."""
