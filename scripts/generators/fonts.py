"""Words in several scripts, and the fonts of this machine that have their letters.

Only fonts that are installed are used; without any, Pillow's own font writes Latin letters.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))

# Part of the texts in Latin letters; the others share the rest.
LATIN_SHARE = 0.5

# A text is measured at this size, and scaled to what it must fit into.
MEASURED_SIZE_PX = 64

# Smaller letters are no letters any more.
MIN_SIZE_PX = 7


@dataclass(frozen=True)
class Script:
    """A script: the names of fonts that have its letters, some words, what stands between them."""

    font_names: tuple[str, ...]
    words: tuple[str, ...]
    separator: str = " "


LATIN = Script(
    (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono"),
        *("DejaVuSansCondensed-Bold", "NotoSans-Regular", "NotoSans-Bold", "NotoSerif-Italic"),
        *("NotoSerif-Bold", "NimbusSans-Bold", "NimbusSansNarrow-Bold", "NimbusRoman-Regular"),
        *("URWGothic-Demi", "URWBookman-Demi", "Z003-MediumItalic", "P052-Italic", "C059-Bold"),
    ),
    tuple(
        "when the coffee machine breaks again no one moves sunday market fresh bread 4,50 studio"
        " lindqvist photography proof summer sale up to 70 % off today only wait until you hear"
        " this Straße größer Übergabe café à bientôt mañana niño não coração żółw město ıspanak"
        " lake trip 2018 draft v3 confidential property of me and my cat feels like home".split()
    ),
)
OTHER_SCRIPTS = (
    Script(
        ("DejaVuSans-Bold", "NotoSans-Bold", "NotoSerif-Regular", "DejaVuSerif"),
        tuple(
            "привет сегодня распродажа новая квартира доброе утро где мой кот осень фото".split()
        ),
    ),
    Script(
        ("DejaVuSans-Bold", "NotoSans-Regular", "DejaVuSerif"),
        tuple("καλημέρα σήμερα φωτογραφία θάλασσα προσφορά δείγμα ταξίδι".split()),
    ),
    Script(
        ("NotoNaskhArabic-Regular", "NotoKufiArabic-Bold", "NotoSansArabic-Bold", "DejaVuSans"),
        tuple("صباح الخير اليوم صورة جديدة عرض خاص مرحبا رحلة البحر".split()),
    ),
    Script(
        ("NotoSansHebrew-Bold", "NotoSerifHebrew-Regular", "DejaVuSans"),
        tuple("שלום בוקר טוב תמונה חדשה מבצע היום בלבד טיול".split()),
    ),
    Script(
        ("NotoSansDevanagari-Bold", "NotoSerifDevanagari-Regular"),
        tuple("नमस्ते शुभ प्रभात नई तस्वीर आज की यात्रा बिक्री परिवार".split()),
    ),
    Script(
        ("NotoSansBengali-Bold", "NotoSerifBengali-Regular"), tuple("শুভ সকাল নতুন ছবি আজ".split())
    ),
    Script(("NotoSansTamil-Bold",), tuple("வணக்கம் இன்று புதிய படம் விற்பனை".split())),
    Script(
        ("NotoSansThai-Bold", "NotoSerifThai-Regular", "NotoLoopedThai-Regular"),
        tuple("สวัสดี วันนี้ ภาพใหม่ ลดราคา ทะเล ครอบครัว".split()),
        "",
    ),
    Script(
        ("NotoSansArmenian-Bold", "NotoSerifArmenian-Regular", "DejaVuSans"),
        tuple("բարև այսօր նոր լուսանկար վաճառք ծով ընտանիք".split()),
    ),
    Script(
        ("NotoSansCJK-Bold", "NotoSerifCJK-Regular", "NotoSansCJK-Regular"),
        tuple("今日 特価 写真 週末の 新しい 旅行 おはよう ございます 見本 カフェ".split()),
        "",
    ),
    Script(
        ("NotoSansCJK-Bold", "NotoSerifCJK-Bold", "NotoSansCJK-Regular"),
        tuple("早上好 今天 新照片 打折 周末 旅行 样品 仅供内部 使用 我的猫".split()),
        "",
    ),
    Script(
        ("NotoSansCJK-Bold", "NotoSansCJK-Regular"),
        tuple("안녕하세요 오늘 새로운 사진 할인 주말 여행 견본".split()),
    ),
)


@dataclass(frozen=True)
class Lettering:
    """A script and the file of a font that has its letters; None is Pillow's own font."""

    script: Script
    path: Path | None

    def write(self, rng: random.Random, min_count: int, max_count: int) -> str:
        """Write `min_count` to `max_count` words; in capitals in a third of all cases."""
        words = rng.choices(self.script.words, k=rng.randint(min_count, max_count))
        text = self.script.separator.join(words)
        return text.upper() if rng.random() < 1 / 3 else text

    def wrap(self, rng: random.Random, line_count: int, word_count: int) -> str:
        """Write `line_count` lines of about `word_count` words."""
        least = max(1, word_count - 1)
        return "\n".join(self.write(rng, least, word_count + 1) for _ in range(line_count))

    def fit(self, text: str, width: float, height: float) -> Font:
        """Load the font at the size at which `text`, of one or more lines, fits into the pixels."""
        measured = load_font(self.path, MEASURED_SIZE_PX)
        lines = text.split("\n")
        widest = max(measured.getlength(line) for line in lines)
        size = min(width * MEASURED_SIZE_PX / max(widest, 1), height / (1.25 * len(lines)))
        return load_font(self.path, max(MIN_SIZE_PX, int(size)))


def find_font_files() -> Iterator[Path]:
    """Yield the TrueType and OpenType fonts of this machine in order."""
    for folder in FONT_FOLDERS:
        for suffix in ("ttf", "otf", "ttc"):
            yield from sorted(folder.rglob(f"*.{suffix}"))


@functools.cache
def list_fonts() -> dict[str, Path]:
    """List the fonts of this machine by the names of their files, without the suffix."""
    return {path.stem: path for path in find_font_files()}


@functools.lru_cache(maxsize=256)
def load_font(path: Path | None, size: int) -> Font:
    """Load a font at a size in pixels."""
    if path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(path, size)


def pick_lettering(rng: random.Random, latin_share: float = LATIN_SHARE) -> Lettering:
    """Pick a script, Latin in `latin_share` of all cases, and an installed font for it."""
    fonts = list_fonts()
    is_latin = rng.random() < latin_share
    scripts = [
        script for script in OTHER_SCRIPTS if any(name in fonts for name in script.font_names)
    ]
    script = LATIN if is_latin or not scripts else rng.choice(scripts)
    names = [name for name in script.font_names if name in fonts]
    return Lettering(script, fonts[rng.choice(names)] if names else None)
