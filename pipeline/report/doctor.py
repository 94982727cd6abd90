"""What this installation is and can do, for a person who wonders and for reports of bugs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import features

from pipeline.decode.formats import EXTRA_INSTALLED
from pipeline.report.answers import SCHEMA_VERSION, escape_unprintable, pluralize
from pipeline.workers.cpus import count_usable_cores

# Asked of the packages' own records, because importing them takes seconds.
PACKAGES = (
    "neardup",
    "numpy",
    "faiss-cpu",
    "onnxruntime",
    "pillow",
    "pillow-heif",
    "rawpy",
    "pillow-jxl-plugin",
    "google-genai",
    "open_clip_torch",
    "torch",
)
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
)  # formats that need no extra, as README has them
CPU_INFO_PATH = Path("/proc/cpuinfo")
# Those that decide how fast a model runs, as Linux calls them.
CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "asimddp": "dot product",
}


def inspect_installation(store: Path) -> dict[str, Any]:
    """Versions (None: not installed), formats with the extra that would add one, cores, CPU, GPUs, access to Google, and the store."""
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": _collect_versions(),
        "formats": {
            name: {"read": there, "extra": extra}
            for name, (there, extra) in _check_formats().items()
        },
        "cores": os.cpu_count() or 1,
        "usable_cores": count_usable_cores(),
        "threads": count_usable_cores(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "cpu": {"architecture": platform.machine(), "features": _read_cpu_features()},
        "gpus": _list_gpus(),
        "google": _check_google_access(),
        "store": {"path": os.fspath(store), "exists": (store / "catalog.db").exists()},
    }


def _get_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _collect_versions() -> dict[str, str | None]:
    own = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libheif": _get_libheif_version(),
    }
    return {package: _get_version(package) for package in PACKAGES} | own


def _get_libheif_version() -> str | None:
    try:
        import pillow_heif
    except ImportError:  # what a person may have come here for
        return None
    return str(pillow_heif.libheif_version())


def _check_formats() -> dict[str, tuple[bool, str | None]]:
    """Whether each is read, and the extra that would add it."""
    built = {
        "JPEG": "jpg",
        "MPO": "jpg",
        "WebP": "webp",
        "TIFF": "libtiff",
        "AVIF": "avif",
        "JPEG 2000": "jpg_2000",
    }
    return {
        name: (name not in built or bool(features.check(built[name])), None)
        for name in BUILT_IN_FORMATS
    } | {
        "raw photos": (EXTRA_INSTALLED["raw"], "raw"),
        "JPEG XL": (EXTRA_INSTALLED["jxl"], "jxl"),
    }


def _read_cpu_features() -> list[str]:
    try:
        text = CPU_INFO_PATH.read_text()
    except OSError:
        return []
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted({CPU_FEATURES[flag] for flag in flags.split() if flag in CPU_FEATURES})
    return []


def _list_gpus() -> list[str]:
    """Those that torch can use; without torch no model here does."""
    if not _get_version("torch"):
        return []
    try:
        import torch

        if torch.cuda.is_available():
            return [
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            ]
        return ["mps"] if torch.backends.mps.is_available() else []
    except Exception as error:  # a torch that does not start, or a driver that does not fit it
        return [f"unknown: {error!r}"]


def _check_google_access() -> dict[str, bool]:
    """Whether there is something that gives access to Google's models; never what it is, and nobody is asked whether it is any good."""
    config = Path(os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud"))  # noqa: PTH111 - some have no home
    file = Path(
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        or config / "application_default_credentials.json"
    )
    return {
        "key": any(
            os.environ.get(name, "").strip() for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY")
        ),
        "credentials": file.is_file(),
    }


def format_doctor_report(report: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    for name, version in report["versions"].items():
        yield f"{name:<18} {version or 'not installed'}"
    yield ""
    for name, format_ in report["formats"].items():
        hint = (
            f", add it with: pip install 'neardup[{format_['extra']}]'"
            if format_["extra"] and not format_["read"]
            else ""
        )
        yield f"{name:<18} {'yes' if format_['read'] else 'no'}{hint}"
    yield ""
    threads = (
        f", OMP_NUM_THREADS={escape_unprintable(report['omp_num_threads'])}"
        if report["omp_num_threads"]
        else ""
    )
    yield f"{'cores':<18} {report['usable_cores']} of {report['cores']}; a model computes with {pluralize(report['threads'], 'thread')}{threads}"
    yield f"{'cpu':<18} {', '.join([report['cpu']['architecture'], *report['cpu']['features']])}"
    yield f"{'gpu':<18} {', '.join(map(escape_unprintable, report['gpus'])) or 'none'}"
    key, credentials = (
        "yes" if report["google"][name] else "no" for name in ("key", "credentials")
    )
    yield f"{'google':<18} key in the environment: {key}, application default credentials: {credentials}"
    yield f"{'store':<18} {escape_unprintable(report['store']['path'])}{'' if report['store']['exists'] else ' (not there yet)'}"
