"""Draw docs/result.png, README's picture: a group that `neardup dedupe` finds, and a neighbour that it leaves alone.

    python scripts/draw_result.py

All pictures are drawn here, so nobody's photo is shown.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from indexes import Root, Store
from pipeline import Match, find_groups, ingest_roots, load_embedder
from pipeline.calibrate import synthetic_copies as copies

RESULT_PATH = Path(__file__).resolve().parent.parent / "docs" / "result.png"
CELL_SIZE_PX, MARGIN_PX = (236, 178), 18


def draw_landscape(seed: int, size: tuple[int, int] = (1200, 900)) -> Image.Image:
    """Hills, a sun, a lake and trees; another seed is another place."""
    rng = random.Random(seed)
    width, height = size
    sky = Image.linear_gradient("L").resize(size)
    tones = [
        tuple(rng.randrange(low, high) for low, high in ((40, 120), (90, 170), (170, 240))),
        (250, rng.randrange(190, 230), 170),
    ]
    picture = ImageOps.colorize(sky, tones[0], tones[1])
    draw = ImageDraw.Draw(picture)
    x, y, radius = (
        rng.uniform(0.15, 0.85) * width,
        rng.uniform(0.15, 0.35) * height,
        rng.uniform(0.05, 0.09) * width,
    )
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 246, 214))
    for layer in range(4):
        base = height * (0.45 + 0.13 * layer)
        points = [
            (0, height),
            *((step * width / 8, base + rng.uniform(-0.11, 0.05) * height) for step in range(9)),
            (width, height),
        ]
        draw.polygon(
            points, fill=(60 - 8 * layer, 110 - 16 * layer + rng.randrange(30), 90 - 18 * layer)
        )
    for _ in range(rng.randrange(10, 24)):
        x, y, tall = (
            rng.uniform(0, width),
            rng.uniform(0.75, 0.97) * height,
            rng.uniform(0.08, 0.2) * height,
        )
        draw.polygon(
            [(x, y - tall), (x - tall / 3, y), (x + tall / 3, y)],
            fill=(16, 50 + rng.randrange(30), 36),
        )
    grain = Image.effect_noise(size, 22).convert("RGB")
    return Image.blend(picture, grain, 0.06).filter(ImageFilter.GaussianBlur(0.8))


def describe_match(match: Match) -> str:
    """What a photo is to the one that is kept."""
    return ": ".join([match.relation, *(match.verdict.describe() if match.verdict else [])[:1]])


def main() -> None:
    """Make a folder of pictures, ask neardup, and draw what it says."""
    rng = random.Random(4)
    place = draw_landscape(1)
    shown = {
        "DSC_0412.jpg": place,
        "DSC_0412 (copy).jpg": None,
        "whatsapp.jpg": copies.reencode(place.resize((640, 480)), "jpeg", 40),
        "for-grandma.jpg": copies.crop_randomly(place, 0.9, rng),
        "signed.jpg": copies.add_caption(place, rng),
        "DSC_0413.jpg": draw_landscape(11),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        for file, picture in shown.items():
            if picture is None:
                (folder / file).write_bytes((folder / "DSC_0412.jpg").read_bytes())
            else:
                picture.save(folder / file, quality=95 if file == "DSC_0412.jpg" else 85)
        with Store(Path(name) / "store", write=True) as store:
            for _ in ingest_roots([Root(str(folder))], store, load_embedder()):
                pass
            (group,) = find_groups(store)
        files = [
            (group.keeper.path, "keep"),
            *((each.file.path, describe_match(each)) for each in group.members),
        ]
        others = [
            (str(path), "not in a group")
            for path in sorted(folder.iterdir())
            if str(path) not in dict(files)
        ]
        sheet = Image.new(
            "RGB",
            (3 * (CELL_SIZE_PX[0] + MARGIN_PX) + MARGIN_PX, 2 * (CELL_SIZE_PX[1] + 56) + MARGIN_PX),
            "white",
        )
        draw = ImageDraw.Draw(sheet)
        for number, (path, says) in enumerate([*files, *others]):
            x, y = (
                MARGIN_PX + (number % 3) * (CELL_SIZE_PX[0] + MARGIN_PX),
                MARGIN_PX + (number // 3) * (CELL_SIZE_PX[1] + 56),
            )
            with Image.open(path) as picture:
                thumbnail = ImageOps.contain(picture.convert("RGB"), CELL_SIZE_PX)
            sheet.paste(thumbnail, (x, y))
            colour = {"keep": (0, 120, 60), "not in a group": (150, 150, 150)}.get(
                says, (40, 40, 40)
            )
            if says == "keep":
                draw.rectangle(
                    (x - 4, y - 4, x + thumbnail.width + 3, y + thumbnail.height + 3),
                    outline=colour,
                    width=4,
                )
            draw.text((x, y + CELL_SIZE_PX[1] + 2), Path(path).name, fill="black", font_size=15)
            draw.text((x, y + CELL_SIZE_PX[1] + 20), says, fill=colour, font_size=15)
    RESULT_PATH.parent.mkdir(exist_ok=True)
    sheet.quantize(128).save(RESULT_PATH, optimize=True)


if __name__ == "__main__":
    main()
