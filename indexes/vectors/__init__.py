"""Unit vectors in FAISS segment files, and their scores. The only importer of faiss."""
