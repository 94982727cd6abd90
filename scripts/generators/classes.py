"""Classes of edits: the synthetic copies of the package, and the generators beside them.

"everyday" and "hard" are the 40 kinds of pipeline/calibrate/synthetic_copies.py. "phone" is what
phones and messengers make, "collages" has gaps of all widths, "browser" is a photo on the screens
of apps and websites as Chromium renders them, "screens" the same as Pillow draws them, for where
Chromium does not run. The others are overlays and edits.
"""

from __future__ import annotations

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS, HARD_EDITS, Edit
from scripts.generators import (
    graphic,
    lettering,
    phone_copies,
    photo_edits,
    photographic,
    redaction,
)
from scripts.generators.browser import render_layout
from scripts.generators.drawing import draw_layout
from scripts.generators.page_pairs import make_screen_edits

# Kinds of all classes but the first two have the name of their class in front: two classes may
# have a kind of one name.
GENERATORS: dict[str, dict[str, Edit]] = {
    "phone": phone_copies.EDITS,
    "collages": photographic.HOSTS,
    "browser": make_screen_edits(render_layout),
    "screens": make_screen_edits(draw_layout),
    "graphic": graphic.EDITS,
    "photographic": photographic.OVERLAYS,
    "lettering": lettering.EDITS,
    "redaction": redaction.EDITS,
    "photo edits": photo_edits.EDITS,
}
CLASSES: dict[str, dict[str, Edit]] = {
    "everyday": EVERYDAY_EDITS,
    "hard": HARD_EDITS,
    **{
        name: {f"{name}: {kind}": edit for kind, edit in edits.items()}
        for name, edits in GENERATORS.items()
    },
}
