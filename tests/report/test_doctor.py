from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.decode.formats import EXTRA_INSTALLED
from pipeline.report import doctor
from tests.support.cli import Run


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    get_version = doctor._get_version
    monkeypatch.setattr(
        doctor, "_get_version", lambda package: None if package == "torch" else get_version(package)
    )


def test_doctor_reports_versions_formats_and_store(
    run: Run, without_torch: None, tmp_path: Path
) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["torch"] is None
    assert all(
        report["versions"][name]
        for name in ("neardup", "faiss-cpu", "onnxruntime", "pillow", "libheif", "sqlite")
    )
    assert all(
        report["formats"][name]["read"]
        for name in ("JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP", "AVIF", "HEIC", "JPEG 2000")
    )
    assert 1 <= report["usable_cores"] <= report["cores"]
    assert report["threads"] == report["usable_cores"]
    assert bool(report["versions"]["google-genai"]) == bool(find_spec("google.genai"))
    assert list(report["formats"]) == [*doctor.BUILT_IN_FORMATS, "raw photos", "JPEG XL"]
    assert report["gpus"] == []
    assert report["store"] == {"path": str(tmp_path / "library"), "exists": False}


def test_doctor_names_extra_of_missing_format(
    run: Run, without_torch: None, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setitem(EXTRA_INSTALLED, "raw", False)
    monkeypatch.setitem(EXTRA_INSTALLED, "jxl", True)
    run("ingest", photos)
    code, out, _ = run("doctor")
    lines = {line[:18].strip(): line[19:] for line in out.splitlines()}
    assert code == 0
    assert lines["raw photos"] == "no; install it with: pip install 'neardup[raw]'"
    assert lines["JPEG XL"] == lines["HEIC"] == "yes"
    assert lines["torch"] == "not installed"
    assert lines["gpu"] == "none"
    assert "does not exist" not in lines["store"]


def test_doctor_works_with_broken_decoder(
    run: Run, without_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert json.loads(out)["versions"]["libheif"] is None


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx avx2 avx512f avx512_vnni avx_vnni\nbugs\t: none\n",
            ["AVX-512", "AVX2", "VNNI"],
        ),
        ("Features\t: fp asimd asimddp\n", ["dot product"]),
        ("model name\t: unheard of\n", []),
        (None, []),
    ],
)
def test_cpu_features_are_read_from_cpuinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, features: list[str]
) -> None:
    monkeypatch.setattr(doctor, "CPU_INFO_PATH", tmp_path / "cpuinfo")
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert doctor._read_cpu_features() == features


def test_gpus_are_named_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_get_version", lambda package: "2.9")
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda number: f"card {number}",
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert doctor._list_gpus() == ["card 0", "card 1"]
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert doctor._list_gpus()[0].startswith("unknown")


def test_versions_are_read_without_importing_model_libraries() -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.report import doctor\n"
        "doctor._list_gpus = list\n"
        "doctor.inspect_installation(Path('/nowhere'))\n"
        "libraries = {'torch', 'open_clip', 'onnxruntime', 'rawpy', 'pillow_jxl'}\n"
        "print(sorted(libraries & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_formats_come_in_the_order_of_the_documentation() -> None:
    guide = Path(__file__).parent.parent.parent / "docs" / "guide" / "formats.md"
    *first, last = doctor.BUILT_IN_FORMATS
    assert f"{', '.join(first)} and {last}, whatever the name" in guide.read_text()


def test_google_access_is_reported_without_secrets(
    run: Run, without_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert json.loads(run("doctor", "--json")[1])["google"] == {"key": False, "credentials": False}
    monkeypatch.setenv("GEMINI_API_KEY", "very-secret")
    (tmp_path / "application_default_credentials.json").write_text("secret too")
    assert json.loads(run("doctor", "--json")[1])["google"] == {"key": True, "credentials": True}
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert "secret" not in run(*arguments)[1]
    assert "key in the environment: yes, application default credentials: yes" in run("doctor")[1]
