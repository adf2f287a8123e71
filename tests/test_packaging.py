"""What travels: the profiles lie inside the wheel, whether built from the checkout or from the sdist, and are found there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgetune

WHERE = "from edgetune.profile import available_profiles, profiles_folder; print(profiles_folder(), *available_profiles())"


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a distribution with the project's own backend, as pip does, and return it."""
    code = f"import sys, hatchling.build; print(hatchling.build.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, capture_output=True, text=True, check=True)
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def profiles(repository: Path) -> set[str]:
    return {path.name for path in (repository / "profiles").glob("*.toml")}


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    source = repository
    if request.param == "sdist":
        with tarfile.open(build("sdist", repository, folder)) as archive:
            # Pythons before 3.11.4 have no filters.
            archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        source = next(path for path in folder.iterdir() if path.is_dir())
    return build("wheel", source, folder)


def test_the_wheel_carries_the_profiles_and_the_marker_of_types(wheel: Path, profiles: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {name.removeprefix("edgetune/profiles/") for name in names if name.startswith("edgetune/profiles/")}
    assert inside == profiles
    assert "edgetune/py.typed" in names
    assert "edgetune/device/__init__.py" in names
    assert not [name for name in names if name.startswith(("tests", "tools", "profiles"))]


def test_the_wheel_knows_its_version_licence_and_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"edgetune-{edgetune.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        programs = archive.read(f"{info}/entry_points.txt").decode()
        assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
    assert f"\nVersion: {edgetune.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "edgetune = edgetune.cli.main:program" in programs


def test_an_installed_wheel_finds_its_profiles_outside_the_checkout(wheel: Path, profiles: set[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder, *names = _run(tmp_path, WHERE)
    assert Path(folder) == tmp_path / "edgetune" / "profiles"
    assert {f"{name}.toml" for name in names} == profiles
    assert _run(tmp_path, "from edgetune.profile import load_profile; print(load_profile('rk3588').name)") == ["rk3588"]


def test_an_editable_install_reads_the_profiles_of_the_checkout(repository: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    with zipfile.ZipFile(build("editable", repository, tmp_path)) as archive:
        archive.extractall(site)
    # -S: without the environment's own site-packages, where edgetune may be installed; pydantic and click come from there.
    others = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import site, sys; site.addsitedir({str(site)!r}); sys.path += {others!r}; {WHERE}"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, *names = done.stdout.split()
    assert Path(folder) == repository / "profiles"
    assert "host" in names


def test_dependencies_stay_open_to_newer_versions(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [name for name in project["dependencies"] if any(mark in name for mark in ("==", "<", "~=", "!="))] == []


def _run(path: Path, code: str) -> list[str]:
    """Run code with `path` first on the module path, from a folder that holds nothing of edgetune."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()
