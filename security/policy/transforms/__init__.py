"""Transforms: one file per aggregate; its name is the word in the policy."""
