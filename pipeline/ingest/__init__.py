"""Stage 1: scan, decode, embed, store, join, verify. From files to verdicts on pairs of images."""
