"""A whole mill of real processes that loses its plugs: kills, full disks, cuts, old copies.

`plan` says what happens, `yard` is what it happens to, `ordeals` does it, `run` judges after each.
"""
