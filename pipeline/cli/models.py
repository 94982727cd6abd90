"""neardup models: list the models that --model accepts by name."""

from __future__ import annotations

import click

from pipeline.cli.console import print_json, print_lines, print_warning
from pipeline.cli.options import json_option


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the models that --model accepts by name.

    \b
    neardup models                                name, dimension, side of its input in pixels
    neardup models --json

    Those of open_clip are downloaded when they are first used; they are listed if the extra `clip`
    is installed. Any ONNX file with a model card is a model, too: onnx:PATH.
    """
    from dataclasses import asdict

    from pipeline.embed.embedder import list_models
    from pipeline.report.document import make_document

    known = list_models()
    if as_json:
        print_json(make_document({"models": [asdict(model) for model in known.available]}))
    else:
        width = max(len(model.name) for model in known.available)
        print_lines([f"{'model':{width}}    dim  side"])
        print_lines(
            f"{model.name:{width}}  {model.dim:5}  {model.input_size:4}"
            for model in known.available
        )
    for missing in known.missing_extras:
        print_warning(str(missing))
