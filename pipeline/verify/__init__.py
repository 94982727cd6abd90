"""Geometric verification of a candidate pair: features, matching, homography, tile agreement, edits, verdict."""
