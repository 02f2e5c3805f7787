"""Series that combine several points: per hour, day or period, from the series of single points.

Pure functions of those rows, the release sheets, and what people entered: so they can be computed
again at any time, and are whenever a slot they depend on comes or goes.
"""
