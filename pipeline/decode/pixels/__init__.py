"""Decoded pixels: depth, colors, orientation, size, and the hash by which they are known."""
