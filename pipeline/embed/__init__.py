"""Pixels in, unit vectors out: the Embedder protocol, crops, and one backend a file."""
