"""Segments of unit vectors, rows across them, and scores. The only importer of faiss."""
