"""Compiles the core (proxy/core/modules.py) where a compiler, Python's headers and Cython are there; docs/building.md.

HOSTLANE_COMPILE=auto: where something is missing, the same files run as plain Python. never: they do in any case.
always: what cannot be compiled is an error.
HOSTLANE_SANITIZE=address,undefined: with gcc's sanitizers of these names (.ci/sanitizers).
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEFAULT = "auto"
MODE = os.environ.get("HOSTLANE_COMPILE") or DEFAULT
if MODE not in ("auto", "never", "always"):
    sys.exit(f"HOSTLANE_COMPILE: found {MODE!r}; allowed: auto, never, always")

# What a sanitizer finds, it says with the names of functions, and ends the process.
SANITIZE = os.environ.get("HOSTLANE_SANITIZE", "")
_SANITIZER = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
COMPILE = [*_SANITIZER, "-O1", "-g", "-fno-omit-frame-pointer"] if SANITIZE else ["-O2", "-g0"]
LINK = _SANITIZER if SANITIZE else ["-s"]

HERE = os.path.dirname(os.path.abspath(__file__))
# Not imported: that would import proxy, which looks for what is to be made here.
CORE = runpy.run_path(os.path.join(HERE, "proxy", "core", "modules.py"))
DIRECTIVES = {"language_level": 3, "annotation_typing": False, "auto_pickle": False}
# A method of a typed object, handed on as a value, compiles to wrong code with no more than this warning.
STRICT = "-Werror=incompatible-pointer-types"


def source(module: str) -> str:
    base = os.path.join(*module.split("."))
    return base + (".pyx" if os.path.exists(os.path.join(HERE, base + ".pyx")) else ".py")


class BuildCore(build_ext):
    """All modules of the set are compiled, or none is left."""

    def finalize_options(self) -> None:
        self.of = CORE["build_id"](HERE)
        super().finalize_options()
        self.parallel = self.parallel or len(os.sched_getaffinity(0))

    def get_ext_filename(self, fullname: str) -> str:
        return str(CORE["extension"](fullname, self.of))

    def run(self) -> None:
        places = [self.build_lib, *([HERE] if self.inplace else [])]
        self._remove(places)  # of whatever build
        try:
            self._translate()
            super().run()
            self._hook()
        except Exception as error:  # whatever a missing compiler, header or Cython raises
            self._remove(places)
            if MODE == "always":
                raise
            self.extensions = self.distribution.ext_modules = []
            sys.stderr.write(f"*** hostlane: not compiled, the core runs as plain Python: {error}\n")

    def _hook(self) -> None:
        """The hook of `hostlane cdi`, for installations; a checkout compiles it when it is wanted."""
        if self.inplace:
            return
        made = runpy.run_path(os.path.join(HERE, "proxy", "cdi", "build.py"))
        why = made["compile_hook"](os.path.join(self.build_lib, "proxy", "cdi", os.path.basename(made["COMPILED"])))
        if why and MODE == "always":
            raise RuntimeError(why)
        if why:
            sys.stderr.write(f"*** hostlane: without the hook of `hostlane cdi install`: {why}\n")

    def _translate(self) -> None:
        """Python to C, one module after the other: Cython knows no threads."""
        from Cython.Build import cythonize

        folder = os.path.join("build", "core")
        translated = cythonize(self.extensions, build_dir=folder, compiler_directives=DIRECTIVES, quiet=True)
        for extension, done in zip(self.extensions, translated, strict=True):
            extension.sources = done.sources

    def build_extensions(self) -> None:
        known = [*self.compiler.compiler_so, STRICT, "-fsyntax-only", "-x", "c", os.devnull]
        strict = [] if subprocess.run(known, capture_output=True, check=False).returncode else [STRICT]
        for extension in self.extensions:
            extension.extra_compile_args += strict
        super().build_extensions()

    def _remove(self, places: list[str]) -> None:
        for place in places:
            for name in CORE["built"](place):
                Path(place, name).unlink(missing_ok=True)


setup(
    cmdclass={"build_ext": BuildCore},
    ext_modules=[
        Extension(module, [source(module)], extra_compile_args=[*COMPILE], extra_link_args=[*LINK])
        for module in CORE["COMPILED"]
        if MODE != "never"
    ],
)
