"""STAGE 1: scan, decode, embed, store, join, verify. Files go in; verdicts on image pairs come out."""
