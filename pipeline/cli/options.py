"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from indexes import paths as place
from pipeline.verify.relation import Relation


def store_option(command: Callable[..., None]) -> Callable[..., None]:
    """Where the store is."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="NEARDUP_STORE",
        default=place.get_default_store_folder,
        show_default="$XDG_DATA_HOME/neardup/default",
        help="Folder of the store; also NEARDUP_STORE.",
    )(command)


MODEL_NAME_FORMS = "a name of `neardup models`, onnx:PATH, open_clip:ARCH/PRETRAINED, open_clip:ARCH@FILE, google:MODEL or google-describe:VISION+TEXT"


class NonNanRange(click.FloatRange):
    """A number in a range; not NaN, which is outside of each but below and above none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:  # noqa: ANN401 - as click has it
        """As click does it."""
        number: float = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is no number.", param, ctx)
        return number


POSITIVE_INT = click.IntRange(min=1)
WORKER_COUNT = click.IntRange(
    1, 64
)  # a thousand decoders would take the memory of the whole machine before their first picture
PATH_TYPE = click.Path(readable=False)  # what cannot be read is told of each path, by us

model_option = click.option(
    "--model",
    metavar="NAME",
    help=f"{MODEL_NAME_FORMS[0].upper()}{MODEL_NAME_FORMS[1:]}.  [default: the store's, else neardup-1]",
)
threshold_option = click.option(
    "--threshold",
    type=NonNanRange(-1, 1),
    metavar="COSINE",
    help="Least cosine of two photos.  [default: what `calibrate --save` chose, else any that was verified]",
)
min_agreement_option = click.option(
    "--min-agreement",
    type=NonNanRange(0, 1),
    metavar="SHARE",
    help="Least share of a copy's tiles that agree; one with less is similar.  [default: what `calibrate --save` chose, else as verified]",
)
RELATIONS_BY_WORD = {
    "identical": (Relation.IDENTICAL_BYTES, Relation.IDENTICAL_PIXELS),
    "same": (Relation.SAME_PICTURE,),
    "derived": (Relation.DERIVED,),
    "scene": (Relation.SAME_SCENE,),
    "similar": (Relation.SIMILAR,),
}


def split_rules(rules: Iterable[str]) -> list[str]:
    """The rules of all --keep, one by one."""
    return [rule.strip() for some in rules for rule in some.split(",")]


class RelationsType(click.ParamType[frozenset[Relation]]):
    """Some of RELATIONS, with commas between, as the relations that they mean."""

    name = "relations"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[Relation]:  # noqa: ANN401 - as click has it
        """As click does it."""
        names = [name.strip() for name in value.split(",")]
        if unknown := [name for name in names if name not in RELATIONS_BY_WORD]:
            self.fail(
                f"{', '.join(map(ascii, unknown))} is none of {', '.join(RELATIONS_BY_WORD)}.",
                param,
                ctx,
            )
        return frozenset(relation for name in names for relation in RELATIONS_BY_WORD[name])


relations_option = click.option(
    "--relations",
    type=RelationsType(),
    metavar="WORDS",
    help=f"What counts, with commas between: {', '.join(RELATIONS_BY_WORD)}; a scene is another shot, similar is what pixels could not decide."
    "  [default: identical,same,derived]",
)
keep_option = click.option(
    "--keep",
    "rules",
    multiple=True,
    metavar="RULES",
    help="Which photo of a group to keep: the rules that matter most, with commas between, of original, resolution, format, metadata, date,"
    " bytes, path and folder:PATTERN.  [default: in this order]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
wait_option = click.option(
    "--lock-timeout",
    type=NonNanRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for another ingest to end.",
)
allow_cost_up_to_limit_option = click.option(
    "--allow-cost",
    is_flag=True,
    help="Make more than 1,000 paid requests, as many as it takes or --max-calls allows.",
)
allow_cost_option = click.option(
    "--allow-cost", is_flag=True, help="Make more than 1,000 paid requests, as many as it takes."
)
data_option = click.option(
    "--data", is_flag=True, help="Read every byte, and compute every stored score again."
)
exit_option = click.option(
    "--exit-code", is_flag=True, help="Exit with 20 when there are near-duplicates."
)


def ingest_options(command: Callable[..., None]) -> Callable[..., None]:
    """How folders are looked through, and how the work is done."""
    for option in (
        click.option(
            "--exclude",
            "excludes",
            multiple=True,
            metavar="PATTERN",
            help="Leave out names or relative paths like this; repeatable, remembered; '' clears.",
        ),
        click.option(
            "--hidden/--no-hidden",
            default=None,
            help="Look into hidden files and folders too; remembered.",
        ),
        click.option(
            "--accept-missing",
            is_flag=True,
            help="Missing files are deleted, no drive is away; a ROOT that is gone, forgotten.",
        ),
        wait_option,
        click.option(
            "--join",
            type=click.Choice(["exact", "ivf"]),
            help="How pairs are looked for.  [default: exact, or ivf where that would take minutes]",
        ),
        click.option(
            "--crops/--no-crops",
            default=True,
            help="Look for pictures within pictures too: small crops, collages, screenshots.  [default: where the model runs here]",
        ),
        click.option("--verbose", is_flag=True, help="Print how the work is divided."),
    ):
        command = option(command)
    return work_options(command)


def work_options(command: Callable[..., None]) -> Callable[..., None]:
    """How the work of decoding and embedding is done."""
    for option in (
        click.option(
            "--decoders",
            type=WORKER_COUNT,
            metavar="N",
            help="Processes that decode.  [default: one for each core]",
        ),
        click.option(
            "--readers",
            type=WORKER_COUNT,
            default=1,
            metavar="N",
            help="Files read at a time; more serve SSDs and network drives.  [default: 1]",
        ),
        click.option(
            "--threads",
            type=WORKER_COUNT,
            metavar="N",
            help="Threads of the model.  [default: one for each core]",
        ),
        click.option(
            "--batch",
            type=click.IntRange(1, 4096),
            metavar="N",
            help="Pictures embedded at a time.  [default: as the model likes]",
        ),
        click.option(
            "--max-calls",
            type=POSITIVE_INT,
            metavar="N",
            help="Make so many paid requests at most, and go on another time.",
        ),
        allow_cost_up_to_limit_option,
    ):
        command = option(command)
    return command
