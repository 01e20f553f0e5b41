"""Builds the optional accelerator, `eventstore/_accelerator.c`, with whatever C compiler Python itself was built with.

As a build hook it is tried at each installation and never fails one: without a compiler, without Python's headers, or with
EVENTSTORE_PURE=1, Python does the same work. `make accelerate` runs it as a script, which says what is missing and fails.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT: Final = Path(__file__).parent
SOURCE: Final = Path("eventstore/_accelerator.c")
BUILT: Final = SOURCE.with_suffix(sysconfig.get_config_var("EXT_SUFFIX") or ".so")


class BuildError(Exception):
    """Why there is no accelerator."""


def build() -> Path:
    """Compile the accelerator into the source tree.

    Raises:
        BuildError: what is missing, or what the compiler said.
    """
    headers = sysconfig.get_paths()["include"]
    if not (Path(headers) / "Python.h").exists():
        raise BuildError(f"expected Python's headers in {headers}; install them (python3-dev, say)")
    # linked as Python's own extensions are; the flags that Python was built with may not suit another compiler
    linker = shlex.split(os.environ.get("LDSHARED") or sysconfig.get_config_var("LDSHARED") or "cc -shared")
    command = [*linker, "-O2", "-g0", "-fPIC", "-Wall", "-Wextra", "-Wno-missing-field-initializers", f"-I{headers}",
               *shlex.split(os.environ.get("CFLAGS", "")), str(SOURCE)]  # fmt: skip
    fresh = ROOT / f"{BUILT}.{os.getpid()}"
    try:
        outcome = subprocess.run([*command, "-o", str(fresh)], cwd=ROOT, capture_output=True, text=True, check=False)
        if outcome.returncode:
            raise BuildError(f"{linker[0]} failed:\n{outcome.stderr}")
        fresh.replace(ROOT / BUILT)  # a running worker keeps the file that it has mapped
    except FileNotFoundError as error:
        raise BuildError(f"expected a C compiler, found no {error.filename}; install one (gcc, say)") from error
    finally:
        fresh.unlink(missing_ok=True)
    return ROOT / BUILT


class AcceleratorHook(BuildHookInterface[Any]):
    """Puts the accelerator into wheels and editable installations where it can be built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 — Hatch's signature
        if self.target_name != "wheel" or os.environ.get("EVENTSTORE_PURE"):
            return
        try:
            build()
        except BuildError as error:
            self.app.display_warning(f"Without the accelerator, which costs CPU and nothing else: {error}")
            return
        build_data["artifacts"].append(f"/{BUILT}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


if __name__ == "__main__":
    try:
        print(f"Built {build().relative_to(ROOT)}")  # noqa: T201 — for whoever called make
    except BuildError as error:
        sys.exit(str(error))
