"""A factory to test against; imports neither agent nor aggregator."""
