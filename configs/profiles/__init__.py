"""Device profiles: where known equipment keeps what, with sources, and what sources disagree on."""
