"""The Python blocks of the README and of docs/, each run as a program, and compared with the output that the page shows."""

import os
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent.parent
ADDRESS = "http://127.0.0.1:8420"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages():
    """The English pages; the blocks of the Spanish ones are the same."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if "adr" not in page.parts and not page.name.endswith(".es.md")]


def programs():
    for page in pages():
        blocks = BLOCK.findall(page.read_text(encoding="utf-8")) + [("", "")]
        for number, ((language, program), (next_language, shown)) in enumerate(zip(blocks, blocks[1:])):
            if language == "python":
                name = f"{page.relative_to(ROOT)}:{number}"
                yield pytest.param(program, shown if next_language == "text" else "", id=name)


PROGRAMS = [*programs()]


def masked(text):
    """The lines without the numbers that differ from run to run."""
    return [re.sub(r"=[\d.]+", "=N", line) for line in text.splitlines()]


def test_programs_were_found():
    assert len(PROGRAMS) >= 8


@pytest.mark.parametrize("program, shown", PROGRAMS)
def test_a_program_of_a_page_runs(program, shown, capsys):
    exec(compile(program.replace(ADDRESS, os.environ["LIKEWISE_URL"]), "a page", "exec"), {"__name__": "__main__"})
    printed = iter(masked(capsys.readouterr().out))
    for line in masked(shown):
        assert line in printed, f"not printed: {line}"


def test_alerts_are_rules_of_prometheus():
    (group,) = yaml.safe_load((ROOT / "examples" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert len(group["rules"]) > 8
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "annotations"} and rule["annotations"]["summary"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_yaml_of_the_pages_is_read():
    blocks = [text for page in pages() for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language == "yaml"]
    assert blocks and all(isinstance(yaml.safe_load(block), dict) for block in blocks)
