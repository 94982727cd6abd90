"""Pairs in, groups out: star clustering around keepers, and the rules that choose a keeper."""
