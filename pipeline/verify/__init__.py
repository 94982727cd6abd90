"""Geometric verification: decide from pixels how two candidate images are related.

The steps: features, matching, residual (with homography), edits, verdict, upscaling. `verify` runs
them for one pair, `pool` in worker processes.
"""
