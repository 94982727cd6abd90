"""Measure what a store's settings find, on synthetic copies of its own images."""
