"""Who may import whom, read from the source: the table of docs/concepts.md, checked."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import speech_peft

ROOT = Path(speech_peft.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

# What each part may import of ours. A part is a folder, or a module right under the package: its name, and
# what stands on nothing but it. Lower parts come first, and none imports what comes after it.
OURS: dict[str, set[str]] = {
    "errors": set(),
    "compat": set(),
    "registry": {"errors"},
    "files": {"errors"},
    "terminal": {"errors"},
}
GROUND = set(OURS) | {"speech_peft"}
OURS |= {
    "audio": GROUND,
    "core": GROUND,
    "metrics": GROUND | {"audio"},
    "prepare": GROUND | {"audio"},
    "methods": GROUND | {"core"},
    "compose": GROUND | {"core", "methods"},
    "backbones": GROUND | {"core", "audio"},
    # core and audio inside functions and for types alone: a typo in a recipe costs no import of torch
    "recipe": GROUND | {"core", "audio"},
    "decoders": GROUND | {"core", "metrics", "backbones"},
    "opening": GROUND | {"core", "audio", "methods", "compose", "backbones", "decoders"},
    "predictions": GROUND | {"metrics"},
    "folders": GROUND | {"core", "audio", "backbones", "decoders", "opening"},
}
OURS["export"] = set(OURS) | {"speech_peft"}
BELOW = set(OURS) | {"speech_peft"}
OURS["shards"] = BELOW
BELOW = BELOW | {"shards"}
OURS |= {
    "transcribe": BELOW,
    "classify": BELOW,
    "generate": BELOW,
    "restore": BELOW | {"transcribe"},  # its guard listens
}
BELOW = BELOW | {"generate"}
OURS["estimate"] = BELOW | {"transcribe", "classify", "restore"}
OURS["bench"] = BELOW | {"transcribe", "classify", "restore"}
OURS["train"] = OURS["bench"] | {"bench"}
OURS["sweep"] = OURS["train"] | {"train"}
OURS["cli"] = OURS["sweep"] | {"sweep"}
OURS["__main__"] = {"cli"}
# What of other distributions, at the top of a module; the standard library is free everywhere.
THEIRS: dict[str, set[str]] = {
    "core": {"torch", "safetensors", "pydantic", "jaxtyping"},
    "methods": {"torch", "pydantic", "jaxtyping"},
    "errors": set(),
    "terminal": {"typer"},
    "registry": set(),
    "compat": set(),
    "files": {"torch", "safetensors", "yaml", "pydantic", "filelock"},
}
# … and, besides, inside functions.
LAZY: dict[str, set[str]] = {"core": {"huggingface_hub", "transformers"}}
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_utilities"}
TOP, SIDE_BY_SIDE = 6, 16
"""Modules right under the package, and files in one folder: more are not found again."""


def part_of(path: Path) -> str:
    """The folder under the package, or the module; the package's own __init__ is "speech_peft"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "speech_peft" if parts == ("__init__",) else parts[0]


def imports(path: Path, functions: bool = True) -> set[str]:
    """Absolute names of all modules that a file imports; without `functions` only those at its top."""
    package = ("speech_peft", *path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            found |= {f"{module}.{alias.name}" for alias in node.names}
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)
    return found


def ours(path: Path) -> set[str]:
    """The parts of this package that a file imports, other than its own."""
    names = [name.split(".") for name in imports(path) if name.split(".")[0] == "speech_peft"]
    parts = {
        n[1] if (ROOT / n[1]).is_dir() or (ROOT / f"{n[1]}.py").is_file() else "speech_peft"
        for n in names
        if n[1:]
    }
    return parts - {part_of(path)}


def files_of(path: Path) -> set[Path]:
    """The files of this package that a file imports, inside functions and for types too."""
    found = set()
    for name in imports(path):
        first, *rest = name.split(".")
        for parts in (rest, rest[:-1]) if first == "speech_peft" else ():
            if (file := ROOT.joinpath(*parts).with_suffix(".py")).is_file():
                found.add(file)
                break
            if (file := ROOT.joinpath(*parts, "__init__.py")).is_file():
                found.add(file)
                break
    return found - {path}


def theirs(path: Path, functions: bool) -> set[str]:
    roots = {name.split(".")[0] for name in imports(path, functions)}
    return roots - set(sys.stdlib_module_names) - {"speech_peft", "__future__"}


def dotted(path: Path) -> str:
    return ".".join(("speech_peft", *path.relative_to(ROOT).with_suffix("").parts))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_arrow_points_upwards_or_sideways(path):
    if part_of(path) != "speech_peft":  # which holds the public names
        assert ours(path) <= OURS[part_of(path)]


def test_the_table_has_no_circle_and_the_files_have_none():
    order = list(OURS)
    for part, below in OURS.items():
        assert all(order.index(other) < order.index(part) for other in below - {"speech_peft"})
    graph = {named(path): set(map(named, files_of(path))) for path in SOURCES if path != ROOT / "__init__.py"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' <- '.join(error.args[1])}")


def test_a_folder_can_be_taken_in_at_a_glance():
    assert len(list(ROOT.glob("*.py"))) <= TOP
    folders = {path.parent for path in SOURCES} - {ROOT / "methods"}  # a shelf of like things
    files = {named(folder): len([p for p in folder.iterdir() if p.is_file()]) for folder in folders}
    assert not {folder: count for folder, count in files.items() if count > SIDE_BY_SIDE}


def test_init_files_hold_names_alone():
    """Importing a package costs nothing, so that `--help` imports no torch."""
    for path in ROOT.rglob("__init__.py"):
        if path != ROOT / "__init__.py":
            body = ast.parse(path.read_text()).body
            assert not [node for node in body if not isinstance(node, ast.Expr)], named(path)


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) in THEIRS], ids=named)
def test_the_low_layers_need_few_distributions(path):
    allowed = THEIRS[part_of(path)]
    assert theirs(path, functions=False) <= allowed
    if part_of(path) != "compat":  # which imports by name
        assert theirs(path, functions=True) <= allowed | LAZY.get(part_of(path), set())


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_lightning_lives_in_train_only(path):
    if part_of(path) not in {"train"}:
        assert not theirs(path, functions=True) & LIGHTNING


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) in {"methods", "core"}], ids=named)
def test_a_method_mentions_no_backbone(path):
    text = path.read_text().lower()
    names = [
        p.stem for p in (ROOT / "backbones").glob("*.py") if p.stem in {"whisper", "ast", "conformer", "usm"}
    ]
    code = {node.id.lower() for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert not code & set(names)


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) == "backbones"], ids=named)
def test_a_backbone_mentions_no_method(path):
    methods = {p.stem for p in (ROOT / "methods").glob("[!_]*.py")}
    code = {
        node.id.lower()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)  # a field may be called prefix
    }
    assert not code & methods


def test_the_checks_see_relative_imports_and_those_in_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for folder in ("methods", "backbones", "core"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "methods" / "bad.py"
    path.write_text(
        "from ..backbones.whisper import W\nfrom .. import core\ndef f():\n    import lightning.x\n"
    )
    assert imports(path) == {"speech_peft.backbones.whisper.W", "speech_peft.core", "lightning.x"}
    assert ours(path) == {"backbones", "core"}
    assert theirs(path, functions=False) == set()
    assert theirs(path, functions=True) == {"lightning"}
