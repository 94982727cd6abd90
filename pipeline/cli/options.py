"""Options that several commands share, and the records in which commands get their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexes.paths import get_default_store_folder
from pipeline.cli.values import (
    BATCH_SIZE,
    COSINE,
    PATH_TYPE,
    POSITIVE_INT,
    RELATIONS_BY_WORD,
    SHARE,
    WORKER_COUNT,
    NumberRange,
    RelationsType,
)
from pipeline.verify.relation import Relation

if TYPE_CHECKING:
    from pipeline.grouping.keep_rules import KeepRules
    from pipeline.ingest.coverage import IngestOptions

Command = Callable[..., None]

MODEL_NAME_FORMS = (
    "a name from `neardup models`, onnx:PATH, open_clip:ARCH/PRETRAINED, open_clip:ARCH@FILE,"
    " google:MODEL or google-describe:VISION+TEXT"
)

# --- records ---


def pass_options(
    name: str, record: type[Any], options: Sequence[Callable[[Command], Command]]
) -> Callable[[Command], Command]:
    """Add options to a command and pass their values as one record, in the parameter `name`.

    The record is a dataclass with a field for each option.
    """
    option_names = [field.name for field in fields(record)]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def pass_record(**values: Any) -> None:
            chosen = {option_name: values.pop(option_name) for option_name in option_names}
            command(**values, **{name: record(**chosen)})

        decorated: Command = pass_record
        for option in reversed(options):  # help lists first what is applied last
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True, kw_only=True)
class WorkArguments:
    """Options of decoding and embedding, as they were given on the command line."""

    lock_timeout: float = 0.0
    decoders: int | None = None
    readers: int = 1
    threads: int | None = None
    batch: int | None = None
    max_calls: int | None = None
    allow_cost: bool = False

    def to_ingest_options(self) -> IngestOptions:
        """Build the options of the pipeline; `threads` is for the model."""
        from pipeline.ingest.coverage import IngestOptions

        return IngestOptions(
            batch_size=self.batch,
            decoders=self.decoders,
            readers=self.readers,
            lock_timeout_seconds=self.lock_timeout,
            max_paid_calls=self.max_calls,
            accept_paid_calls=self.allow_cost,
        )


@dataclass(frozen=True, kw_only=True)
class IngestArguments(WorkArguments):
    """Options of an ingest, as they were given on the command line."""

    model: str | None = None
    excludes: Sequence[str] = ()
    hidden: bool | None = None
    accept_missing: bool = False
    join: str | None = None
    crops: bool = True
    strict: bool = False
    verbose: bool = False

    def to_ingest_options(self, named_roots: Iterable[str] = ()) -> IngestOptions:
        """Build the options of the pipeline.

        With --accept-missing, the real paths `named_roots` may be gone for good.
        """
        from indexes.join.planner import JoinMethod

        return replace(
            super().to_ingest_options(),
            accept_missing=self.accept_missing,
            roots_to_remove=frozenset(named_roots if self.accept_missing else ()),
            join_method=JoinMethod(self.join) if self.join else None,
            with_crops=self.crops,
        )


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """The model that was named, and whether it may make paid requests beyond a few."""

    model: str | None
    allow_cost: bool


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """The thresholds (>=) and relations of a search; None for the store's or the default ones."""

    threshold: float | None
    min_agreement: float | None
    relations: frozenset[Relation] | None


@dataclass(frozen=True, kw_only=True)
class GroupArguments(SearchArguments):
    """The thresholds and relations of groups, and the rules by which keepers are chosen."""

    rules: Sequence[str]

    def parse_keep_rules(self) -> KeepRules:
        """Parse the rules of all --keep; raises InvalidKeepRule."""
        from pipeline.grouping.keep_rules import KeepRules

        return KeepRules(rule.strip() for rules in self.rules for rule in rules.split(","))


@dataclass(frozen=True, kw_only=True)
class ScopeArguments:
    """Options for the photos that those below the roots are compared with."""

    against_all: bool
    against: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """The form of an answer: JSON or text, and whether near-duplicates set the exit code."""

    as_json: bool
    exit_code: bool


# --- options ---


def _make_threshold_option(default: str) -> Callable[[Command], Command]:
    return click.option(
        "--threshold",
        type=COSINE,
        metavar="COSINE",
        help=f"Leave out pairs of photos with a lower cosine.  [default: {default}]",
    )


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="NEARDUP_STORE",
    default=get_default_store_folder,
    show_default="$XDG_DATA_HOME/neardup/default",
    help="Folder of the store; also set by NEARDUP_STORE.",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    help=f"{MODEL_NAME_FORMS[0].upper()}{MODEL_NAME_FORMS[1:]}."
    "  [default: the store's, else neardup-1]",
)
threshold_option = _make_threshold_option(
    "as saved by `calibrate --save`, else every verified pair counts"
)
compare_threshold_option = _make_threshold_option("every verified pair counts")
min_agreement_option = click.option(
    "--min-agreement",
    type=SHARE,
    metavar="SHARE",
    help="Lowest share of tiles that agree in a copy; a copy below it is reported as similar."
    "  [default: as saved by `calibrate --save`, else every verified copy counts]",
)
keep_option = click.option(
    "--keep",
    "rules",
    multiple=True,
    metavar="RULES",
    help="Which photo of a group to keep: rules separated by commas, the most important first, out"
    " of original, resolution, format, parts, metadata, date, lossy, bytes, path and"
    " folder:PATTERN."
    "  [default: in this order]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
exit_code_option = click.option(
    "--exit-code", is_flag=True, help="Exit with 20 if there are near-duplicates."
)
lock_timeout_option = click.option(
    "--lock-timeout",
    type=NumberRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait this long for another ingest to finish.",
)
allow_cost_option = click.option(
    "--allow-cost", is_flag=True, help="Allow more than 1,000 paid requests."
)
allow_cost_up_to_limit_option = click.option(
    "--allow-cost",
    is_flag=True,
    help="Allow more than 1,000 paid requests, up to --max-calls if that is given.",
)
data_option = click.option(
    "--data", is_flag=True, help="Read every byte and compute every stored score again."
)


def make_relations_option(default: str) -> Callable[[Command], Command]:
    """Make the option --relations; `default` is only for its help."""
    return click.option(
        "--relations",
        type=RelationsType(),
        metavar="WORDS",
        help=f"Relations that count, separated by commas: {', '.join(RELATIONS_BY_WORD)}."
        " A frame is one of an animation, or a page of a document. A scene is another shot;"
        " similar is what pixels could not decide."
        f"  [default: {default}]",
    )


_WORK_OPTIONS = (
    lock_timeout_option,
    click.option(
        "--decoders",
        type=WORKER_COUNT,
        metavar="N",
        help="Processes that decode photos.  [default: one per core]",
    ),
    click.option(
        "--readers",
        type=WORKER_COUNT,
        default=1,
        metavar="N",
        help="Files read at a time; more can be faster on SSDs and network drives.  [default: 1]",
    ),
    click.option(
        "--threads",
        type=WORKER_COUNT,
        metavar="N",
        help="Threads that the model uses.  [default: one per core]",
    ),
    click.option(
        "--batch",
        type=BATCH_SIZE,
        metavar="N",
        help="Photos embedded at a time.  [default: what suits the model]",
    ),
    click.option(
        "--max-calls",
        type=POSITIVE_INT,
        metavar="N",
        help="Make at most N paid requests; a later run makes the rest.",
    ),
    allow_cost_up_to_limit_option,
)
_INGEST_OPTIONS = (
    model_option,
    click.option(
        "--exclude",
        "excludes",
        multiple=True,
        metavar="PATTERN",
        help="Skip names, or paths below the folder, that match; repeatable, remembered; ''"
        " clears.",
    ),
    click.option(
        "--hidden/--no-hidden",
        default=None,
        help="Scan hidden files and folders too; remembered.",
    ),
    click.option(
        "--accept-missing",
        is_flag=True,
        help="Treat missing files as deleted; use it only when no drive is away. Forget a ROOT"
        " that is gone.",
    ),
    click.option(
        "--join",
        type=click.Choice(["exact", "ivf"]),
        help="How to find pairs.  [default: exact, or ivf where exact would take minutes]",
    ),
    click.option(
        "--crops/--no-crops",
        default=True,
        help="Find photos within photos too: small crops, collages, screenshots."
        "  [default: if the model runs locally]",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Exit with 3 also for unreadable and missing photos that the run before had.",
    ),
    click.option("--verbose", is_flag=True, help="Print how the work is divided."),
    *_WORK_OPTIONS,
)
_COPIES = "identical,same,derived"  # the default of groups

work_arguments = pass_options("work", WorkArguments, _WORK_OPTIONS)
ingest_arguments = pass_options("arguments", IngestArguments, _INGEST_OPTIONS)
model_arguments = pass_options("model", ModelArguments, (model_option, allow_cost_option))
search_arguments = pass_options(
    "search",
    SearchArguments,
    (threshold_option, min_agreement_option, make_relations_option(f"{_COPIES},similar")),
)
group_arguments = pass_options(
    "search",
    GroupArguments,
    (threshold_option, min_agreement_option, make_relations_option(_COPIES), keep_option),
)
scope_arguments = pass_options(
    "scope",
    ScopeArguments,
    (
        click.option(
            "--against-all",
            is_flag=True,
            help="Compare with the whole store, not only among the photos below ROOT.",
        ),
        click.option(
            "--against",
            multiple=True,
            metavar="FOLDER",
            type=PATH_TYPE,
            help="Print only groups with a photo below a ROOT and one below this folder, which is"
            " ingested too; repeatable.",
        ),
    ),
)
output_arguments = pass_options("output", OutputArguments, (json_option, exit_code_option))
