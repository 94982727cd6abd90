"""Damage inside files that their decoders repair silently, and where it begins."""
