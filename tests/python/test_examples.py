"""Every program of examples/python, run against the server as a reader would run it."""

import os
import pathlib
import re
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples" / "python"
# Programs that cannot run here, and why.
NOT_RUN = {"smollm2.py": "needs xllamacpp and a model of 98 MB"}


def run(name):
    """The lines that the example prints."""
    variables = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], env=variables, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_example_has_a_test():
    tested = {f"{name.removeprefix('test_run_')}.py" for name in globals() if name.startswith("test_run_")}
    assert tested | NOT_RUN.keys() == {path.name for path in EXAMPLES.glob("*.py")}


def test_run_embed():
    assert len(run("embed.py")) == 4
    assert run("embed.py")[0] == "likewise; hit; detail=memory"


def test_run_openai_chat():
    lines = [re.sub(r"ttl=\d+", "ttl=N", line) for line in run("openai_chat.py")]
    hit = "likewise; hit; ttl=N; detail=memory"
    assert lines == [
        "likewise; fwd=miss",
        hit, "the same answer again: True",
        hit, "the same answer as a stream: True",
        "product:42 is invalidated",
        "likewise; fwd=miss",
    ]


def test_run_objects_lease():
    assert run("objects_lease.py") == [
        "50 threads, 1 value, 1 load",
        "again: a hit",
        "50 threads, 1 value, 0 load",
    ]


def test_run_search():
    text = "\n".join(run("search.py"))
    stored, *searches = text.split("\n\n")
    assert stored == "200 products are stored"
    first, again, cheap, changed = (search.splitlines() for search in searches)
    assert first[0].endswith("likewise; fwd=miss") and again[0].endswith("likewise; hit; detail=memory")
    assert "Cafetera" in first[1] and first[1:] == again[1:]
    prices = [float(re.search(r"([\d.]+) EUR", line)[1]) for line in cheap[1:]]
    assert len(prices) == 3 and max(prices) < 50
    assert changed[0].endswith("likewise; fwd=miss") and "Cafetera nueva" in changed[1]


def test_run_rag():
    holidays, train, holidays_again, train_again, changed, new, train_still = run("rag.py")
    assert holidays.startswith("new: ") and "22 days" in holidays
    assert train.startswith("new: ") and "second class" in train
    assert holidays_again == holidays.replace("new: ", "cached: ", 1)
    assert train_again == train.replace("new: ", "cached: ", 1) == train_still
    assert changed == "the document on holidays has changed"
    assert new.startswith("new: ") and "25 days" in new and "22 days" not in new
