"""Links between the documents lead to files and headings that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("sap_ros/data/**/*.md")]
)


def _text(path):
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(path):
    """GitHub's names of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", _text(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken(path):
    for target in re.findall(r"\]\(([^)]+)\)", _text(path)):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    assert list(_broken(path)) == []


def test_a_link_to_nowhere_is_noticed(tmp_path):
    document = tmp_path / "a.md"
    document.write_text("# One `two`\n[x](#one-two) [y](#three) [z](b.md) [w](https://there.org)\n")
    assert list(_broken(document)) == ["#three", "b.md"]
