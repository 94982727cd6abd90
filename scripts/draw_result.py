"""Draw docs/result.png for the README: groups of `neardup dedupe` among copies of four photos.

    python -m scripts.draw_result PHOTOS

PHOTOS holds coffee.png, chelsea.png, astronaut.png and rocket.jpg, sample images of scikit-image
that are CC0 or in the public domain (see NOTICE); they lie in the folder skimage/data of its
package.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from pipeline import Match
from pipeline.calibrate.synthetic_copies import add_caption, reencode
from pipeline.report.edit_phrases import describe_edits
from scripts.library_groups import group_library

RESULT_PATH = Path(__file__).resolve().parent.parent / "docs" / "result.png"
CELL_SIZE_PX = (232, 174)
MARGIN_PX = 18
LINE_PX = 19
FONT_SIZE_PX = 14
COLUMNS = 4
KEEPER_COLOR = (0, 120, 60)
TEXT_COLOR = (40, 40, 40)
OUTSIDE_COLOR = (150, 150, 150)


def save_library(photos: Path, folder: Path) -> None:
    """Save four photos and seven copies of two of them into `folder`."""
    rng = random.Random(4)
    coffee = Image.open(photos / "coffee.png").convert("RGB")
    cat = Image.open(photos / "chelsea.png").convert("RGB")
    coffee.save(folder / "DSC_0412.jpg", quality=95)
    (folder / "DSC_0412 (copy).jpg").write_bytes((folder / "DSC_0412.jpg").read_bytes())
    reencode(coffee.resize((420, 280)), "jpeg", 40).save(folder / "whatsapp.jpg", quality=60)
    coffee.crop((60, 40, 560, 380)).save(folder / "for-grandma.jpg", quality=85)
    cat.save(folder / "cat.jpg", quality=95)
    add_caption(cat, rng).save(folder / "meme.jpg", quality=85)
    ImageOps.mirror(cat).convert("L").convert("RGB").save(folder / "mirrored.jpg", quality=85)
    cat.rotate(6, expand=True, fillcolor="white").save(folder / "scan.jpg", quality=85)
    Image.open(photos / "astronaut.png").convert("RGB").save(folder / "portrait.jpg", quality=90)
    Image.open(photos / "rocket.jpg").convert("RGB").save(folder / "launch.jpg", quality=90)


def describe_match(match: Match) -> str:
    """Describe a member in a few words: its relation, and at most two edits."""
    edits = describe_edits(match.verdict, "the keeper")
    return ": ".join([match.relation.value, *([", ".join(edits[:2])] if edits else [])])


def draw_cell(
    sheet: Image.Image,
    place: tuple[int, int],
    path: Path,
    caption: str,
    color: tuple[int, int, int],
) -> None:
    """Draw a thumbnail with its file name and caption; column and row are `place`."""
    x = MARGIN_PX + place[0] * (CELL_SIZE_PX[0] + MARGIN_PX)
    y = MARGIN_PX + place[1] * (CELL_SIZE_PX[1] + 2 * LINE_PX + MARGIN_PX)
    draw = ImageDraw.Draw(sheet)
    with Image.open(path) as image:
        thumbnail = ImageOps.contain(image.convert("RGB"), CELL_SIZE_PX)
    sheet.paste(thumbnail, (x, y))
    if color == KEEPER_COLOR:
        box = (x - 4, y - 4, x + thumbnail.width + 3, y + thumbnail.height + 3)
        draw.rectangle(box, outline=color, width=4)
    while draw.textlength(caption, font_size=FONT_SIZE_PX) > CELL_SIZE_PX[0]:
        caption = caption.rpartition(", ")[0]
    text_y = y + CELL_SIZE_PX[1] + 3
    draw.text((x, text_y), path.name, fill="black", font_size=FONT_SIZE_PX)
    draw.text((x, text_y + LINE_PX), caption, fill=color, font_size=FONT_SIZE_PX)


def main() -> None:
    """Save the library, find its groups, and draw them, a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of the four photos")
    photos = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        save_library(photos, folder)
        groups = group_library(folder, Path(scratch) / "store")
        grouped = {file.path for group in groups for file in group.files}
        outside = [path for path in sorted(folder.iterdir()) if str(path) not in grouped]
        row_height = CELL_SIZE_PX[1] + 2 * LINE_PX + MARGIN_PX
        width = COLUMNS * (CELL_SIZE_PX[0] + MARGIN_PX) + MARGIN_PX
        sheet = Image.new("RGB", (width, (len(groups) + 1) * row_height + MARGIN_PX), "white")
        for row, group in enumerate(groups):
            draw_cell(sheet, (0, row), Path(group.keeper.path), "keep", KEEPER_COLOR)
            for column, member in enumerate(group.members, 1):
                path = Path(member.file.path)
                draw_cell(sheet, (column, row), path, describe_match(member), TEXT_COLOR)
        for column, path in enumerate(outside):
            draw_cell(sheet, (column, len(groups)), path, "in no group", OUTSIDE_COLOR)
    RESULT_PATH.parent.mkdir(exist_ok=True)
    sheet.quantize(200).save(RESULT_PATH, optimize=True)
    print(f"{len(groups)} groups, {len(outside)} files in no group: {RESULT_PATH}")


if __name__ == "__main__":
    main()
