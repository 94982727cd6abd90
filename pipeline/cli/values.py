"""Values on the command line: which words are accepted, and what they become."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import Any

import click

from indexes.paths import quote
from pipeline.verify.relation import Relation

# What each word of --relations stands for.
RELATIONS_BY_WORD = {
    "identical": (Relation.IDENTICAL_BYTES, Relation.IDENTICAL_PIXELS),
    "same": (Relation.SAME_PICTURE,),
    "derived": (Relation.DERIVED,),
    "frame": (Relation.FRAME_OF, Relation.PAGE_OF),
    "overlaps": (Relation.OVERLAPS,),
    "scene": (Relation.ANOTHER_SHOT,),
    "template": (Relation.SAME_TEMPLATE,),
    "similar": (Relation.SIMILAR,),
}


class NumberRange(click.FloatRange):
    """A number in a range. NaN is refused: it compares as neither below nor above a bound."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - the type that click declares
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Convert a word to a number in the range, or fail with exit code 2."""
        number: float = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


class RelationsType(click.ParamType[frozenset[Relation]]):
    """Words of RELATIONS_BY_WORD, separated by commas, as the relations that they stand for."""

    name = "relations"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - the type that click declares
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> frozenset[Relation]:
        """Convert words to relations, or fail with exit code 2."""
        words = [word.strip() for word in value.split(",")]
        if unknown := [word for word in words if word not in RELATIONS_BY_WORD]:
            known = ", ".join(RELATIONS_BY_WORD)
            self.fail(f"{', '.join(map(ascii, unknown))} is none of {known}.", param, ctx)
        return frozenset(relation for word in words for relation in RELATIONS_BY_WORD[word])


class OutputFileType(click.Path):
    """A file to write, as a Path; a folder is refused, also one to be made, and so is stdout."""

    def __init__(self, example: str) -> None:
        """Show `example`, the name of a file, in the message."""
        super().__init__(path_type=Path)
        self._example = example

    def convert(
        self,
        value: Any,  # noqa: ANN401 - the type that click declares
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - the type that click declares
        """Convert a path, or fail with exit code 2."""
        path = os.fspath(value)
        if path in ("", "-"):
            self.fail(f"{path!r} is no file; name one, such as {self._example}.", param, ctx)
        if path.endswith("/") or os.path.isdir(path):  # noqa: PTH112 - never raises
            file = quote(os.path.join(path, self._example))  # noqa: PTH118 - may be no UTF-8
            self.fail(f"{quote(path)} is a folder; name a file, such as {file}.", param, ctx)
        return super().convert(value, param, ctx)


class AgeType(click.ParamType[timedelta]):
    """An age: a number of days, 30d, or of hours, 12h."""

    name = "age"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - the type that click declares
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> timedelta:
        """Convert a word to an age, or fail with exit code 2."""
        match = re.fullmatch(r"(\d{1,5})([dh])", value, re.ASCII)
        if match is None and value.isdecimal() and value.isascii():
            units = f"{value}d for days or {value}h for hours"
            self.fail(f"{value!a} is no age without a unit; type {units}.", param, ctx)
        if match is None:
            self.fail(f"{value!a} is no age; name days or hours, such as 30d or 12h.", param, ctx)
        return timedelta(**{"days" if match[2] == "d" else "hours": int(match[1])})


POSITIVE_INT = click.IntRange(min=1)
WORKER_COUNT = click.IntRange(1, 64)  # a thousand decoders would fill the memory of the machine
BATCH_SIZE = click.IntRange(1, 4096)
COSINE = NumberRange(-1, 1)
SHARE = NumberRange(0, 1)
# Paths are not checked by click: each that cannot be read is reported by the command itself.
PATH_TYPE = click.Path(readable=False)
