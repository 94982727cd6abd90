"""Inspect this installation: versions, formats, hardware; for a person and for bug reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import features

from indexes.paths import CATALOG_NAME, escape_unprintable
from pipeline.decode.formats import EXTRA_INSTALLED
from pipeline.report.document import make_document
from pipeline.report.format import pluralize
from pipeline.workers.cpus import count_usable_cores

# Their versions are read from the installed metadata: importing the packages takes seconds.
PACKAGES = (
    "neardup",
    "numpy",
    "faiss-cpu",
    "onnxruntime",
    "pillow",
    "pillow-heif",
    "rawpy",
    "pillow-jxl-plugin",
    "starlette",
    "uvicorn",
    "google-genai",
    "open_clip_torch",
    "torch",
)
# Formats that need no extra, in the order of the README.
BUILT_IN_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WebP",
    "GIF",
    "TIFF",
    "BMP",
    "AVIF",
    "HEIC",
    "JPEG 2000",
    "PNM",
)
# Built-in formats that a build of Pillow may lack, by its name for the feature.
PILLOW_FEATURES = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "WebP": "webp",
    "TIFF": "libtiff",
    "AVIF": "avif",
    "JPEG 2000": "jpg_2000",
}
CPU_INFO_PATH = Path("/proc/cpuinfo")
# CPU features that decide how fast a model runs, by their name in Linux.
CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "asimddp": "dot product",
}


@dataclass(frozen=True)
class FormatSupport:
    """The support of a format: if it can be read, and the extra that adds it, if any."""

    is_readable: bool
    extra: str | None = None


@dataclass(frozen=True)
class Cpu:
    """The architecture of a CPU, and which of CPU_FEATURES it has."""

    architecture: str
    features: Sequence[str]


@dataclass(frozen=True)
class GoogleAccess:
    """The ways to Google's models: if there is a key, and if there are credentials."""

    has_key: bool
    has_credentials: bool


@dataclass(frozen=True)
class DoctorReport:
    """The answer of `doctor`.

    `versions` are those of packages, Python and the libraries below them; None if not installed.
    """

    versions: Mapping[str, str | None]
    formats: Mapping[str, FormatSupport]
    cores: int
    usable_cores: int
    threads: int
    omp_num_threads: str | None
    cpu: Cpu
    gpus: Sequence[str]
    google: GoogleAccess
    store: Path
    has_store: bool


def inspect_installation(store: Path) -> DoctorReport:
    """Collect versions, formats, cores, CPU, GPUs, access to Google, and whether `store` exists."""
    return DoctorReport(
        versions=_collect_versions(),
        formats=_check_formats(),
        cores=os.cpu_count() or 1,
        usable_cores=count_usable_cores(),
        threads=count_usable_cores(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        cpu=Cpu(platform.machine(), _read_cpu_features()),
        gpus=_list_gpus(),
        google=_check_google_access(),
        store=store,
        has_store=(store / CATALOG_NAME).exists(),
    )


def _get_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _collect_versions() -> dict[str, str | None]:
    return {package: _get_version(package) for package in PACKAGES} | {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libheif": _get_libheif_version(),
    }


def _get_libheif_version() -> str | None:
    try:
        import pillow_heif
    except ImportError:  # a broken installation is what doctor is for
        return None
    return str(pillow_heif.libheif_version())


def _check_formats() -> dict[str, FormatSupport]:
    checked: dict[str, FormatSupport] = {}
    for name in BUILT_IN_FORMATS:
        feature = PILLOW_FEATURES.get(name)
        checked[name] = FormatSupport(feature is None or bool(features.check(feature)))
    checked["raw photos"] = FormatSupport(EXTRA_INSTALLED["raw"], "raw")
    checked["JPEG XL"] = FormatSupport(EXTRA_INSTALLED["jxl"], "jxl")
    return checked


def _read_cpu_features() -> list[str]:
    try:
        text = CPU_INFO_PATH.read_text()
    except OSError:
        return []
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # on x86, on ARM
            return sorted({CPU_FEATURES[flag] for flag in flags.split() if flag in CPU_FEATURES})
    return []


def _list_gpus() -> list[str]:
    """List the GPUs that torch can use; without torch no model here uses one."""
    if not _get_version("torch"):
        return []
    try:
        import torch

        if torch.cuda.is_available():
            return [
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            ]
        return ["mps"] if torch.backends.mps.is_available() else []
    except Exception as error:  # torch does not load, or does not fit the driver
        return [f"unknown: {error!r}"]


def _check_google_access() -> GoogleAccess:
    """Check which ways to Google's models exist; neither is read or tried."""
    default_folder = os.path.expanduser("~/.config/gcloud")  # noqa: PTH111 - never raises
    config_folder = Path(os.environ.get("CLOUDSDK_CONFIG") or default_folder)
    credentials = Path(
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        or config_folder / "application_default_credentials.json"
    )
    keys = (os.environ.get(name, "").strip() for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"))
    return GoogleAccess(any(keys), credentials.is_file())


def serialize_doctor_report(report: DoctorReport) -> dict[str, Any]:
    """Serialize the answer of `doctor`."""
    return make_document(
        {
            "versions": report.versions,
            "formats": {
                name: {"read": support.is_readable, "extra": support.extra}
                for name, support in report.formats.items()
            },
            "cores": report.cores,
            "usable_cores": report.usable_cores,
            "threads": report.threads,
            "omp_num_threads": report.omp_num_threads,
            "cpu": asdict(report.cpu),
            "gpus": report.gpus,
            "google": {
                "key": report.google.has_key,
                "credentials": report.google.has_credentials,
            },
            "store": {"path": os.fspath(report.store), "exists": report.has_store},
        }
    )


def format_doctor_report(report: DoctorReport) -> Iterator[str]:
    """Yield the lines of the answer of `doctor`."""
    for name, version in report.versions.items():
        yield f"{name:<18} {version or 'not installed'}"
    yield ""
    for name, support in report.formats.items():
        if support.is_readable:
            yield f"{name:<18} yes"
        elif support.extra:
            yield f"{name:<18} no; install it with: pip install 'neardup[{support.extra}]'"
        else:
            yield f"{name:<18} no"
    yield ""
    threads = f"models use {pluralize(report.threads, 'thread')}"
    if report.omp_num_threads:
        threads += f", OMP_NUM_THREADS={escape_unprintable(report.omp_num_threads)}"
    yield f"{'cores':<18} {report.usable_cores} of {report.cores}; {threads}"
    yield f"{'cpu':<18} {', '.join([report.cpu.architecture, *report.cpu.features])}"
    yield f"{'gpu':<18} {', '.join(map(escape_unprintable, report.gpus)) or 'none'}"
    access = f"key in the environment: {_format_existence(report.google.has_key)}"
    credentials = _format_existence(report.google.has_credentials)
    access += f", application default credentials: {credentials}"
    yield f"{'google':<18} {access}"
    missing = "" if report.has_store else " (does not exist yet)"
    yield f"{'store':<18} {escape_unprintable(os.fspath(report.store))}{missing}"


def _format_existence(exists: bool) -> str:
    return "yes" if exists else "no"
