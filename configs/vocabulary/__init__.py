"""The vocabulary as data: measurands, media, unit conversions, state models, time elements."""
