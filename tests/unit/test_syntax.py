"""Summaries of source files, and the memory of them between calls."""

import json
import os
import sys

import pytest

from sns_workflow import syntax

TEXT = (
    '"""A page."""\nimport os\nfrom a.b import c as d\nfrom . import e\nfrom ..f import g\n\n'
    'def stage(*, output: Path, steps: int = 3):\n    "Do it."\n'
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one file and a memory of its own. Returns a function that begins the next call and summarises the file."""
    monkeypatch.setattr(syntax, "ROOT", tmp_path)
    monkeypatch.setattr(syntax, "MEMORY", tmp_path / "memory" / "syntax.json")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "module.py").write_text(TEXT)

    def next_call() -> syntax.Summary:
        for function in (syntax._memory, syntax.summarise):
            function.cache_clear()
        summary = syntax.summary(tmp_path / "module.py")
        syntax.remember()
        return summary

    yield next_call
    syntax._memory.cache_clear()
    syntax._news.clear()


def test_a_summary_holds_imports_and_keywords_and_ignores_what_is_no_code():
    summary = syntax.summarise(TEXT)
    assert summary.imports == [("os", None), ("a.b", "c"), (".", "e"), ("..f", "g")]
    assert summary.keywords == {"stage": [("output", "Path", True), ("steps", "int", False)]}
    assert syntax.summarise("# a comment\n" + TEXT.replace("Do it.", "Do more.")).content == summary.content
    assert syntax.summarise(TEXT.replace("3", "4")).content != summary.content


def test_the_next_call_parses_only_files_that_have_changed(project, tmp_path, monkeypatch):
    first, parsed = project(), []
    parse = syntax.ast.parse
    with monkeypatch.context() as patch:
        patch.setattr(syntax.ast, "parse", lambda *words: parsed.append(words) or parse(*words))
        same = project()
    assert same == first and not parsed
    status = os.stat(tmp_path / "module.py")
    (tmp_path / "module.py").write_text(TEXT.replace("3", "4"))
    os.utime(tmp_path / "module.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert project().content != first.content, "a file of the same size and time"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"files": {}}', '{"files": {"module.py": {}}, "written_by": "other code"}']
)
def test_a_memory_that_cannot_be_read_is_made_anew(project, content):
    first = project()
    syntax.MEMORY.write_text(content)
    assert project() == first
    assert "module.py" in json.loads(syntax.MEMORY.read_text())["files"]


def test_nothing_is_written_if_python_writes_no_compiled_code_or_if_the_folder_is_read_only(project, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = project()
    assert not syntax.MEMORY.parent.exists()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    syntax.MEMORY.parent.write_text("a file in place of the folder")
    assert project() == first
