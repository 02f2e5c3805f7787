"""Global warming potentials."""
