"""neardup explain: explain how two images are related."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli.compare import compare_files, load_decisions_if_any
from pipeline.cli.console import EXIT_SKIPPED, print_json, print_lines, print_message
from pipeline.cli.options import ModelArguments, json_option, model_arguments, store_option
from pipeline.cli.values import PATH_TYPE, OutputFileType


@click.command()
@click.argument("first", metavar="A", type=PATH_TYPE)
@click.argument("second", metavar="B", type=PATH_TYPE)
@click.option(
    "--image",
    type=OutputFileType("why.png"),
    metavar="OUT.png",
    help="Draw what was compared.",
)
@store_option
@model_arguments
@json_option
def explain(
    first: str,
    second: str,
    image: Path | None,
    store: Path,
    model: ModelArguments,
    as_json: bool,
) -> None:
    """Explain how two photos are related.

    \b
    neardup explain a.jpg b.jpg
    neardup explain a.jpg b.jpg --image why.png   side by side, overlaid, the difference, the tiles

    Works without a store; if there is one, its model is used, and a decision on the two is named.
    """
    from pipeline.report.comparison import format_explanation, serialize_comparison
    from pipeline.report.comparison_image import require_writable_image, save_comparison_image

    if image:
        require_writable_image(image)
    comparison, space = compare_files([first, second], store, model)
    decisions = load_decisions_if_any(store)
    if as_json:
        document = serialize_comparison(comparison, space, space.threshold, None, decisions)
        print_json(document)
    else:
        print_lines(format_explanation(comparison, space.threshold, decisions))
    if image and save_comparison_image(comparison, image):
        print_message(f"image written to {image}")
    if comparison.list_failures():
        sys.exit(EXIT_SKIPPED)
