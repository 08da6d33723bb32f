"""The rules that a reviewer would otherwise repeat: who may import whom, how long things may be, what may not be said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Top to bottom. A module imports from its own layer and from those below it; no two modules import each other in a circle.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "app pages cli __main__",
        "figures jobs",
        "planner compression",
        "analysis",
        "capture simulate formats",
        "tracing",
        "estimate",
        "allocator optimizations",
        "workloads",
        "models",
        "storage recording spec devices platform_calls",
        "errors units",
    )
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PAGE_LINES = 80
MAX_APP_LINES = 60
BANNED_MODULE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
HEAVY = ("torch", "transformers")

PRODUCT = [ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py")), *sorted((ROOT / "profiler").rglob("*.py"))]
COMMITTED_TEXT = {".py", ".md", ".toml", ".txt", ".js", ".css", ".html", ".json", ".yml", ".cfg", ""}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _module(path: Path) -> str:
    """Return the word of LAYERS that a file belongs to; empty for the package's front, which may name everything."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "profiler":
        return parts[0]
    return parts[1] if parts[1] != "__init__" else ""


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere in it; ``from a import b`` yields ``a.b``."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{_relative(path)}:{node.lineno} imports relatively; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_imports(path: Path) -> set[str]:
    """Return the words of LAYERS that a file imports."""
    found = set()
    for name in _imports(path):
        first, second, *_ = [*name.split("."), ""]
        if first == "profiler" and _is_module(second):
            found.add(second)
        elif first in {"pages", "app"}:
            found.add(first)
    return found


def _is_module(word: str) -> bool:
    """Return whether ``profiler.word`` is a module, rather than a name that the package's front gives."""
    return (ROOT / "profiler" / f"{word}.py").exists() or (ROOT / "profiler" / word / "__init__.py").exists()


def _layer(word: str) -> int:
    found = [index for index, layer in enumerate(LAYERS) if word in layer]
    assert found, f"{word!r} has no layer: give it one in LAYERS and in the design"
    return found[0]


@pytest.mark.parametrize("path", PRODUCT, ids=_relative)
def test_imports_point_downward(path: Path) -> None:
    if not (word := _module(path)):
        return
    upward = [other for other in _own_imports(path) if _layer(other) < _layer(word)]

    assert not upward, f"{_relative(path)} imports {upward}, which lie above {word!r}"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {}
    for path in PRODUCT:
        if word := _module(path):
            below.setdefault(word, set()).update(_own_imports(path) - {word})

    while below:
        leaves = {word for word, others in below.items() if not others & below.keys()}
        assert leaves, f"these import each other in a circle: {sorted(below)}"
        below = {word: others for word, others in below.items() if word not in leaves}


@pytest.mark.parametrize("path", [p for p in PRODUCT if "profiler" in p.relative_to(ROOT).parts[:1]], ids=_relative)
def test_the_library_never_imports_streamlit(path: Path) -> None:
    assert not [name for name in _imports(path) if name.split(".")[0] == "streamlit"]


@pytest.mark.parametrize("path", PRODUCT, ids=_relative)
def test_files_stay_short(path: Path) -> None:
    limits = {"app.py": MAX_APP_LINES} | {_relative(page): MAX_PAGE_LINES for page in (ROOT / "pages").glob("*.py")}
    num_lines = len(path.read_text(encoding="utf-8").splitlines())

    assert num_lines <= limits.get(_relative(path), MAX_FILE_LINES)


@pytest.mark.parametrize("path", PRODUCT, ids=_relative)
def test_functions_stay_short(path: Path) -> None:
    functions = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = {f.name: f.end_lineno - f.lineno + 1 for f in functions if f.end_lineno and f.end_lineno - f.lineno >= MAX_FUNCTION_LINES}

    assert not too_long


@pytest.mark.parametrize("path", PRODUCT, ids=_relative)
def test_modules_have_names_that_say_something(path: Path) -> None:
    assert not BANNED_MODULE_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", [p for p in PRODUCT if p.name != "units.py"], ids=_relative)
def test_only_units_knows_how_many_bytes_a_gib_has(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not re.findall(r"1024\s*\*\*|\b1024\s*\*\s*1024|1 << [123]0\b|\b1073741824\b|\b1048576\b", text)


@pytest.mark.parametrize("path", [p for p in PRODUCT if "shared" not in p.parts and p.parent.name == "pages"], ids=_relative)
def test_pages_touch_session_state_and_caches_only_through_the_session_module(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert not re.findall(r"st\.(session_state|query_params|cache_data|cache_resource)", text)


def test_importing_the_library_loads_neither_torch_nor_streamlit() -> None:
    code = "import sys, profiler; print([m for m in ('torch', 'transformers', 'streamlit') if m in sys.modules])"

    assert _run_python(code) == "[]"


def test_the_dashboard_with_all_its_pages_loads_neither_torch_nor_transformers(home: Path) -> None:
    pages = [_relative(page) for page in sorted((ROOT / "pages").glob("*.py"))]
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(ROOT / "app.py")!r}, default_timeout=60).run()
for page in {pages!r}:
    app.switch_page(page).run()
    assert not app.exception, (page, app.exception)
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    assert _run_python(code) == "[]"


def test_nothing_committed_names_a_folder_of_the_machine_it_was_made_on() -> None:
    a_machines_folder = re.compile(r"(?<![\w.~}])/(?:home|root|Users|work|workspace|mnt)/\w")
    found = [
        f"{_relative(path)}:{number}"
        for path in _committed()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if a_machines_folder.search(line)
    ]

    assert not found


def _committed() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in listing.stdout.splitlines()]
    return [path for path in paths if path.suffix in COMMITTED_TEXT and path.is_file() and path.stat().st_size < 1_000_000]


def _run_python(code: str) -> str:
    """Run ``code`` in a fresh interpreter at the repository's root and return the last line it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]
