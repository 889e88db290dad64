"""`make docs`: docs/methods.md and docs/reliability.md, from their templates (*.in.md); docs/conformance.md too.

    python -m benchmarks.document

A line `<!-- NAME -->` of the template gives way to what is made under that name here.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path

from benchmarks import conformance
from reconstruction import Recipe, stage
from reconstruction.grade import BOUNDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("methods", "reliability")
MEASURED = ROOT / "docs" / "measured"
"""Tables that benchmarks have written."""

DOI = re.compile(r"doi:(10\.\d{4,}/[^\s;,]+)")


def page(name: str) -> str:
    """A page as it should be."""
    text = (DOCS / f"{name}.in.md").read_text(encoding="utf-8")
    measured = {f"measured {path.stem}": path.read_text(encoding="utf-8").strip() for path in MEASURED.glob("*.md")}
    for place, made in {"methods": methods(), "recipes": recipes(), "bounds": bounds(), **measured}.items():
        text = text.replace(f"<!-- {place} -->", made)
    return text


def methods() -> str:
    """A table for each stage: what each method does, its settings with their defaults, its sources."""
    return "\n\n".join(_stage(name) for name in stage.STAGES)


def recipes() -> str:
    """A table of the recipes that come along: the method of each stage."""
    found = [
        Recipe.from_mapping(tomllib.loads(path.read_text(encoding="utf-8")))
        for path in (ROOT / "config" / "recipes").glob("*.toml")
    ]
    found.sort(key=lambda recipe: (recipe.name != "default", recipe.name))
    rows = [("stage", *(recipe.name for recipe in found)), ("---",) * (len(found) + 1)]
    for name in stage.STAGES:
        steps = [recipe.steps.get(name) for recipe in found]
        if any(steps):
            rows.append((name, *(f"`{step.method}`" if step else "" for step in steps)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bounds() -> str:
    """A table of what a grade is made of."""
    rows = ["| figure | `good` | `failed` | beyond it |", "|---|---|---|---|"]
    for name, bound in BOUNDS.items():
        good, failed = ("≤", ">") if bound.failed > bound.review else ("≥", "<")
        rows.append(f"| `{name}` | {good} {bound.review:g} | {failed} {bound.failed:g} | {bound.meaning} |")
    return "\n".join(rows)


def _stage(name: str) -> str:
    optional = ", optional" if name in stage.OPTIONAL else ""
    rows = [f"### {name}{optional}", "", "| method | what it does | settings | sources |", "|---|---|---|---|"]
    rows += [_row(name, method) for method in stage.methods(name)]
    return "\n".join(rows)


def _row(name: str, method: str) -> str:
    text = importlib.import_module(f"reconstruction.{name}.{method}").__doc__ or ""
    summary = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
    settings = ", ".join(f"`{key} = {_toml(value)}`" for key, value in stage.defaults(name, method).items())
    cited = dict.fromkeys(match.rstrip(".):") for match in DOI.findall(text))
    sources = ", ".join(f"[{doi}](https://doi.org/{doi})" for doi in cited)
    return f"| `{method}` | {summary} | {settings} | {sources} |"


def _toml(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value).replace("'", '"')


def main() -> int:
    pages = {DOCS / f"{name}.md": page(name) for name in PAGES}
    for file, made in {**pages, conformance.PAGE: conformance.page()}.items():
        file.write_text(made, encoding="utf-8")
        print(f"Written: {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
