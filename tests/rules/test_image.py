"""The image is built of what a build needs, and of nothing that changes by itself: nobody notices a missing file before
the image runs the plain core, or another version before it breaks. (It is built and tried in tests/docker/.)
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from control.base.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FIRST, BUILD, FINAL = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = (".ci/locks", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "hostlane.py", "proxy", "control")
LOCKED = {
    "runtime.txt": PROJECT["project"]["dependencies"],
    "build.txt": PROJECT["build-system"]["requires"],
}


def locked(name: str) -> dict[str, list[str]]:
    """The distributions of a lock file, each as ``NAME==VERSION``, and the hashes of their files."""
    text = (ROOT / ".ci/locks" / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin, *options = line.split(" --hash=")
            found[pin.split(";")[0].strip()] = [option.strip() for option in options]
    return found


@pytest.mark.parametrize("name", NEEDED)
def test_the_build_stage_gets_it(name: str) -> None:
    assert (ROOT / name).exists()
    assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in re.findall(r"^COPY (.*)$", BUILD, re.MULTILINE) for word in line.split()[:-1]]
    assert name in copied


@pytest.mark.parametrize("name", LOCKED)
def test_every_version_is_pinned_with_hashes(name: str) -> None:
    for pin, hashes in locked(name).items():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][^\s*]*", pin), pin
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), pin


@pytest.mark.parametrize("name", LOCKED)
def test_the_pinned_versions_are_those_that_the_project_allows(name: str) -> None:
    """`make lock` makes them so."""
    pinned = dict(pin.split("==") for pin in locked(name))
    for wanted in map(Requirement, LOCKED[name]):
        assert pinned.get(canonicalize_name(wanted.name), "none") in wanted.specifier, wanted


def test_nothing_is_installed_without_its_hash() -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install(?:\\\n|[^&\n])*", BUILD)
    assert len(installs) == 3
    for each in installs:
        assert "--require-hashes" in each or ("--no-index" in each and "--no-deps" in each), each


def test_the_base_can_be_another() -> None:
    assert "\nARG BASE=python:" in FIRST
    assert BUILD.startswith("${BASE} AS build\n")
    assert FINAL.startswith("${BASE}\n")


def test_any_builder_can_read_it() -> None:
    """A syntax line has the builder fetch another one; older ones know neither here documents nor these options."""
    assert not re.search(r"^#\s*(syntax|escape|check)\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)
    code = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    for newer in ("--mount", "--link", "--chmod", "--start-interval", "--network", "<<"):
        assert newer not in code, newer


def test_the_final_stage_installs_nothing() -> None:
    code = "\n".join(line for line in FINAL.splitlines() if not line.lstrip().startswith("#"))
    assert "apt-get" not in code
    assert not re.search(r"\bpip3? install", code)


def test_its_user_is_a_number() -> None:
    """Engines that are to run nothing as root cannot tell by a name."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["7600:7600"]


def test_its_labels_say_the_version() -> None:
    assert f'org.opencontainers.image.version="{VERSION}"' in FINAL
    assert f'org.opencontainers.image.description="{PROJECT["project"]["description"]}"' in FINAL


def test_no_start_compiles_the_standard_library_again() -> None:
    """Python's public image has none of it compiled; whoever runs ours may not write there."""
    assert FINAL.index("python3 -m compileall") < FINAL.index("PYTHONDONTWRITEBYTECODE=1") < FINAL.index("USER ")


def test_what_was_compiled_on_this_machine_stays_here() -> None:
    assert "**/*.so" in (ROOT / ".dockerignore").read_text().splitlines()
