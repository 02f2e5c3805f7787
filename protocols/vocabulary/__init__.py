"""The standard words both sides share: measurands, media, units, state models, formulas."""
