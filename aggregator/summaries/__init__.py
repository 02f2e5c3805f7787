"""Summaries over spans of time: ratios made of sums, sums made of parts, never of other summaries."""
