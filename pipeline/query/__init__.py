"""Answers from a store: groups of the library, matches of a file; and a few files compared."""
