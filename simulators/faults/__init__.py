"""Devices that misbehave on command: what the factory floor does to collectors, repeatably.

Every value served tells which register or node it belongs to, so that a value that turns up
under another name is evident. The names of all faults are in `catalogue`.
"""
