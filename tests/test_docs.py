"""What the documents say is there, is there; what is there, is documented."""

from __future__ import annotations

import re

import pytest

from profiler.cli import main
from profiler.recording import Category, Phase, Provenance
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _listed() -> set[str]:
    """Return the paths of the README's file tree; an entry's folder is the one above it with less indentation."""
    block = next(block for block in README.split("```") if block.lstrip().startswith("app.py"))
    paths, folder = set(), ""
    for line in block.strip("\n").splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
        paths.add(name if not line.startswith(" ") else folder + name)
    return {path.rstrip("/") for path in paths}


def _present() -> set[str]:
    """Return what the file tree must list: the folders of the repository, the pages, and the library's modules."""
    top = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_")) and any(path.rglob("*.*"))}
    inside = {
        f"{folder}/{path.name}" for folder in ("pages", "profiler") for path in (ROOT / folder).iterdir() if path.suffix in ("", ".py")
    }
    ignored = {"build", "dist", "artifacts", "shared"}
    return {path for path in top - ignored | inside | {"app.py"} if not path.endswith(("__pycache__", ".egg-info", "py.typed"))}


def test_the_readme_lists_the_files_that_are_there() -> None:
    assert _listed() == _present()


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "pages").glob("*.py")))
def test_the_readme_names_every_page(page: str) -> None:
    assert f"| {page.capitalize()} |" in README


@pytest.mark.parametrize("category", Category)
def test_the_glossary_defines_every_category_as_the_code_does(category: Category) -> None:
    assert f"| {category.label} | {category.value} |".replace("`", "") in GLOSSARY.replace("`", "")


@pytest.mark.parametrize("word", [*Phase, *Provenance])
def test_the_glossary_has_every_phase_and_provenance(word: str) -> None:
    assert re.search(rf"\b{word}\b", GLOSSARY)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document) -> None:  # type: ignore[no-untyped-def]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("target", re.findall(r"`make ([a-z-]+)`", README))
def test_make_has_every_target_that_the_readme_names(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_requirements_are_pinned_exactly() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]

    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", line) for line in lines)
    assert {line.split("==")[0] for line in lines} >= {"streamlit", "torch", "transformers", "plotly", "pyarrow", "psutil", "nvidia-ml-py"}


def test_the_page_of_toggles_is_what_the_registry_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toggles", "--markdown"]) == 0
    assert (ROOT / "docs" / "toggles.md").read_text(encoding="utf-8") == capsys.readouterr().out, "run `make docs`"
