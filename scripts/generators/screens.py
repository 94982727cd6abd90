"""Screens of phones and browsers that show a photo: chats, posts, stories, albums, pages.

Each function lays out a screen: `page` decides its look, `words` its words. Two screens
with one `page` are of one app; with one `words` as well, they differ in their photos only.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from scripts.generators.desktop_screens import lay_out_album, lay_out_article, lay_out_lightbox
from scripts.generators.layout import Layout
from scripts.generators.phone_screens import (
    lay_out_chat,
    lay_out_dark_post,
    lay_out_feed_post,
    lay_out_story,
    lay_out_viewer,
)

# Lays out a screen for a photo of an aspect (width / height).
LayOutScreen = Callable[[random.Random, random.Random, float], Layout]

SCREENS: dict[str, LayOutScreen] = {
    "chat": lay_out_chat,
    "feed post": lay_out_feed_post,
    "dark post": lay_out_dark_post,
    "story": lay_out_story,
    "album": lay_out_album,
    "article": lay_out_article,
    "lightbox": lay_out_lightbox,
    "photo viewer": lay_out_viewer,
}
