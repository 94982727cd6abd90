"""STAGE 2: groups of the whole store, matches of one file, a few files compared."""
