"""The standard words both sides share: measurands, units, state models."""
