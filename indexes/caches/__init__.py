"""Caches of a store: thumbnails with features, and vectors of crops."""
