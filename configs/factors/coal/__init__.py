"""Standard coal equivalents for energy statistics (综合能耗)."""
