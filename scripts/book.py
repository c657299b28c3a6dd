#!/usr/bin/env python3
"""Builds the book of docs/SUMMARY.md with mdBook, and checks each link of its pages: book.py MDBOOK DIRECTORY.

mdBook knows pages of one directory. The book has pages outside of docs/ too, such as ARCHITECTURE.md, so its pages are first copied to
DIRECTORY/src: those of docs/ without that prefix, the others as they lie in the repository. Links are rewritten to match, and
files that pages link to are copied beside them. The book is DIRECTORY/html.
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def place(path):
    """Where a file of the repository is in the book. mdBook would rename a README.md, but not the links to it."""
    directory, name = posixpath.split(path.removeprefix("docs/"))
    return posixpath.join(directory, "index.md" if name == "README.md" else name)


def target(page, link):
    """The file of the repository that a link of a page leads to; of a directory its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    path = posixpath.join(path, "README.md") if (ROOT / path).is_dir() else path
    if not (ROOT / path).is_file():
        sys.exit(f"{page}: {link} does not exist")
    return path


class Book:
    def __init__(self, home):
        self.home = home
        self.chapters = set()

    def add(self, page, text):
        """Writes a page with its links rewritten, and the files that it links to."""

        def rewritten(link):
            if ":" in link[2]:
                return link[0]
            to = target(page, link[2])
            if not to.endswith(".md"):
                self.copy(to)
            elif to not in self.chapters:
                sys.exit(f"{page}: {to} is not in docs/SUMMARY.md")
            return link[1] + posixpath.relpath(place(to), posixpath.dirname(place(page)) or ".") + link[3]

        parts = FENCE.split(text)
        parts = [part for pair in zip(parts, [*FENCE.findall(text), ""]) for part in pair]
        parts[::2] = [LINK.sub(rewritten, part) for part in parts[::2]]
        self.write(place(page), "".join(parts))

    def copy(self, path):
        copied = self.home / "src" / place(path)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copied)

    def write(self, path, text):
        written = self.home / "src" / path
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text, encoding="utf-8")


def title(page):
    return page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def summary():
    """docs/SUMMARY.md with each decision below `adr/README.md`."""
    lines = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8").splitlines()
    decisions = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    for line in lines:
        yield line
        if line.endswith("(adr/README.md)"):
            yield from (f"  - [{title(page)}](adr/{page.name})" for page in decisions)


def stage(home):
    """Writes what mdBook reads."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "src").mkdir(parents=True)
    shutil.copy(ROOT / "docs/book.toml", home)
    book, text = Book(home), "\n".join(summary())
    book.chapters = {target("docs/SUMMARY.md", link[1]) for link in LINK.findall(text)}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"docs/SUMMARY.md"}
    if pages - book.chapters:
        sys.exit(f"not in docs/SUMMARY.md: {sorted(pages - book.chapters)}")
    for page in book.chapters:
        book.add(page, (ROOT / page).read_text(encoding="utf-8"))
    book.add("docs/SUMMARY.md", text)
    return len(book.chapters)


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.anchors.add(named.get("id"))
        self.links += [named[name] for name in ("href", "src") if named.get(name)]


def check(html):
    """The number of links between the files of the book. Each must lead to a file, and to an anchor that it has."""
    # The page of errors is for a book at the root of a site.
    pages = {path: Page(path) for path in html.rglob("*.html") if path.name != "404.html"}
    count, faults = 0, []
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            if ":" in file or file.startswith("//"):
                continue
            count += 1
            to = Path(os.path.normpath(path.parent / unquote(file))) if file else path
            if not to.is_file() or (anchor and to in pages and unquote(anchor) not in pages[to].anchors):
                faults.append(f"{path.relative_to(html)}: {link}")
    if faults:
        sys.exit("links that lead nowhere:\n" + "\n".join(sorted(set(faults))))
    return count


def main(mdbook, home):
    chapters = stage(home)
    done = subprocess.run([mdbook, "build", str(home)], text=True, capture_output=True, timeout=300)
    if done.returncode != 0 or re.search(r"\b(WARN|ERROR)\b", done.stderr):
        sys.exit(done.stdout + done.stderr)
    links = check(home / "html")
    if links < 1000:
        sys.exit(f"only {links} links were read")
    print(f"{home / 'html' / 'index.html'}: {chapters} chapters, {links} links")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
