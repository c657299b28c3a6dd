"""scripts/book.py finds links that lead nowhere, and moves links with their pages."""

import importlib.util
import pathlib
import re

import pytest

SCRIPT = pathlib.Path(__file__).parent.parent.parent / "scripts" / "book.py"
spec = importlib.util.spec_from_file_location("book", SCRIPT)
book = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book)


def html(directory, **pages):
    for name, body in pages.items():
        (directory / f"{name}.html").write_text(body, encoding="utf-8")
    return directory


def test_links_to_files_and_anchors_are_counted(tmp_path):
    page = '<h1 id="top">x</h1><a href="b.html#one">x</a><a href="#top">x</a><a href="https://example.org/">x</a>'
    assert book.check(html(tmp_path, a=page, b='<h2 id="one">x</h2>')) == 2


@pytest.mark.parametrize("link", ["c.html", "b.html#two", "#none", "../a.html"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, link):
    with pytest.raises(SystemExit, match=re.escape(f"a.html: {link}")):
        book.check(html(tmp_path, a=f'<a href="{link}">x</a>', b='<h2 id="one">x</h2>'))


def test_links_are_rewritten_outside_of_code(tmp_path):
    made = book.Book(tmp_path)
    made.chapters = {"README.md", "docs/operations.md"}
    text = "[a](../../README.md) [b](../operations.md#alerts)\n```text\n[c](../../README.md)\n```\n"
    made.add("docs/guides/page.md", text)
    written = (tmp_path / "src" / "guides" / "page.md").read_text(encoding="utf-8")
    assert written == "[a](../index.md) [b](../operations.md#alerts)\n```text\n[c](../../README.md)\n```\n"


def test_a_page_that_is_in_no_list_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="docs/operations.md is not in docs/SUMMARY.md"):
        book.Book(tmp_path).add("docs/guides/page.md", "[a](../operations.md)")
