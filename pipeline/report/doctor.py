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

from pipeline.decode.pool import usable_cores
from pipeline.decode.read import EXTRAS
from pipeline.report.answers import SCHEMA_VERSION, counted, printable

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
OWN = ("JPEG", "MPO", "PNG", "WebP", "GIF", "TIFF", "BMP", "AVIF", "HEIC", "JPEG 2000")  # formats that need no extra, as README has them
CPU_INFO = Path("/proc/cpuinfo")
# Those that decide how fast a model runs, as Linux calls them.
CPU_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "VNNI", "avx512_vnni": "VNNI", "asimddp": "dot product"}


def examine(store: Path) -> dict[str, Any]:
    """Versions (None: not installed), formats with the extra that would add one, cores, CPU, GPUs, access to Google, and the store."""
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": _versions(),
        "formats": {name: {"read": there, "extra": extra} for name, (there, extra) in _formats().items()},
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "threads": usable_cores(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "cpu": {"architecture": platform.machine(), "features": _cpu_features()},
        "gpus": _gpus(),
        "google": _google(),
        "store": {"path": os.fspath(store), "exists": (store / "catalog.db").exists()},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    own = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "libheif": _libheif()}
    return {package: _version(package) for package in PACKAGES} | own


def _libheif() -> str | None:
    try:
        import pillow_heif
    except ImportError:  # what a person may have come here for
        return None
    return str(pillow_heif.libheif_version())


def _formats() -> dict[str, tuple[bool, str | None]]:
    """Whether each is read, and the extra that would add it."""
    built = {"JPEG": "jpg", "MPO": "jpg", "WebP": "webp", "TIFF": "libtiff", "AVIF": "avif", "JPEG 2000": "jpg_2000"}
    return {name: (name not in built or bool(features.check(built[name])), None) for name in OWN} | {
        "raw photos": (EXTRAS["raw"], "raw"),
        "JPEG XL": (EXTRAS["jxl"], "jxl"),
    }


def _cpu_features() -> list[str]:
    try:
        text = CPU_INFO.read_text()
    except OSError:
        return []
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted({CPU_FEATURES[flag] for flag in flags.split() if flag in CPU_FEATURES})
    return []


def _gpus() -> list[str]:
    """Those that torch can use; without torch no model here does."""
    if not _version("torch"):
        return []
    try:
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return ["mps"] if torch.backends.mps.is_available() else []
    except Exception as error:  # a torch that does not start, or a driver that does not fit it
        return [f"unknown: {error!r}"]


def _google() -> dict[str, bool]:
    """Whether there is something that gives access to Google's models; never what it is, and nobody is asked whether it is any good."""
    config = Path(os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud"))  # noqa: PTH111 - some have no home
    file = Path(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or config / "application_default_credentials.json")
    return {
        "key": any(os.environ.get(name, "").strip() for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
        "credentials": file.is_file(),
    }


def doctor_text(about: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    for name, version in about["versions"].items():
        yield f"{name:<18} {version or 'not installed'}"
    yield ""
    for name, format_ in about["formats"].items():
        hint = f", add it with: pip install 'neardup[{format_['extra']}]'" if format_["extra"] and not format_["read"] else ""
        yield f"{name:<18} {'yes' if format_['read'] else 'no'}{hint}"
    yield ""
    threads = f", OMP_NUM_THREADS={printable(about['omp_num_threads'])}" if about["omp_num_threads"] else ""
    yield f"{'cores':<18} {about['usable_cores']} of {about['cores']}; a model computes with {counted(about['threads'], 'thread')}{threads}"
    yield f"{'cpu':<18} {', '.join([about['cpu']['architecture'], *about['cpu']['features']])}"
    yield f"{'gpu':<18} {', '.join(map(printable, about['gpus'])) or 'none'}"
    key, credentials = ("yes" if about["google"][name] else "no" for name in ("key", "credentials"))
    yield f"{'google':<18} key in the environment: {key}, application default credentials: {credentials}"
    yield f"{'store':<18} {printable(about['store']['path'])}{'' if about['store']['exists'] else ' (not there yet)'}"
