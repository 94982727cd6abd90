"""Geometric verification: decide from pixels how two candidate images are related.

The steps: features, alignment (matching of keypoints, tiles with refinement), evidence (what
agrees, what changed), judge (a fitted model), edits, verdict, upscaling. `verify` runs them for one
pair, `pool` in worker processes.
"""
