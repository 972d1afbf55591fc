"""Gathers the pages of the site into build/pages: docs/, README as the first, CONTRIBUTING and CHANGELOG.

Links between pages are kept; those to source files become plain text, as the site has no source.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")


def gather(out: Path) -> None:
    """Write the pages, and the pictures and notebooks beside them."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out)
    for name, page in MOVED.items():
        shutil.copy(ROOT / name, out / page)
    homes = {page: ROOT / name for name, page in MOVED.items()}
    for page in out.rglob("*.md"):
        inside = page.relative_to(out)
        home = homes.get(str(inside), ROOT / "docs" / inside)
        page.write_text(linked(page.read_text(), home, inside))


def linked(text: str, home: Path, page: Path) -> str:
    """The page's text with links as they are in the site; `home` is the file it came from."""

    def change(found: re.Match[str]) -> str:
        picture, title, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or path.startswith("http"):
            return found[0]
        file = (home.parent / path).resolve()
        here = place(file)
        if here is None:
            return title
        up = "../" * (len(page.parts) - 1)
        return f"{picture}[{title}]({up}{here}{hash_}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else LINK.sub(change, part) for part in parts)


def place(file: Path) -> str | None:
    """Where a file is in the site; None for what is not in it."""
    inside = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else ""
    if inside in MOVED:
        return MOVED[inside]
    return inside.removeprefix("docs/") if inside.startswith("docs/") else None


if __name__ == "__main__":
    gather(ROOT / "build" / "pages")
