"""Finds the Chromium that the browser tests drive; ``python -m tests.browser.chromium --install`` adds Debian's where it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


def find_chromium() -> str | None:
    """Return the path of an installed Chromium: ``$CHROMIUM`` first, then the usual names."""
    candidates = (os.environ.get("CHROMIUM"), *_NAMES, _MAC)
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def install_chromium() -> str | None:
    """Install Debian's Chromium where apt-get and the right to use it exist; return its path or None."""
    apt = shutil.which("apt-get")
    if apt is None:
        return None
    prefix = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if prefix and shutil.which("sudo") is None:
        return None
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        if subprocess.run([*prefix, apt, *arguments], check=False).returncode:
            return None
    return find_chromium()


def main(arguments: list[str]) -> int:
    """Say which Chromium the tests use; where there is none, that the browser tests will be skipped."""
    path = find_chromium() or (install_chromium() if "--install" in arguments else None)
    print(  # noqa: T201
        f"Browser tests use {path}."
        if path
        else "No Chromium was found and none could be installed, so the browser tests are skipped. "
        "Install one (Debian: apt-get install chromium) or name it: CHROMIUM=/path/to/chromium make test"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
