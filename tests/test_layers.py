"""Who may import whom, read from the source: the table of docs/concepts.md, checked."""

import ast
import sys
from pathlib import Path

import pytest

import speech_peft

ROOT = Path(speech_peft.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

# What each part may import of ours. A part is a folder, or a module right under the package.
BASE = {"errors", "registry", "compat", "files", "terminal", "interrupts", "speech_peft", "writing"}
ABOVE_CORE = BASE | {"core"}
OURS: dict[str, set[str]] = {
    "core": BASE | {"dotted"},
    "audio": BASE,
    "metrics": BASE | {"audio"},
    "methods": ABOVE_CORE,
    "backbones": ABOVE_CORE | {"audio"},
    "compose": ABOVE_CORE | {"methods"},
    "decoders": ABOVE_CORE | {"backbones"},
    "infer": ABOVE_CORE | {"audio", "metrics", "methods", "backbones", "compose", "decoders"},
    "tasks": ABOVE_CORE
    | {"audio", "metrics", "methods", "backbones", "compose", "decoders", "infer", "config", "processes"},
    "processes": set(),
    "errors": set(),
    "terminal": set(),
    "interrupts": set(),
    "writing": set(),
    "registry": {"errors"},
    "compat": set(),
    "files": {"errors"},
    "dotted": {"errors", "files"},
    # core and audio inside functions and for types alone: a typo in a recipe costs no import of torch
    "stages": {"errors", "dotted", "parts"},
    "config": {"errors", "registry", "files", "dotted", "parts", "recipe", "stages", "core", "audio"},
    "recipe": {"errors", "parts"},
    "parts": set(),
}
# About files of any kind, not about sound: free everywhere. They import nothing of ours but each other.
WHOLE_FILES = [["audio", "atomic"], ["audio", "owner"]]
# What of other distributions, at the top of a module; the standard library is free everywhere.
THEIRS: dict[str, set[str]] = {
    "core": {"torch", "safetensors", "pydantic", "jaxtyping"},
    "methods": {"torch", "pydantic", "jaxtyping"},
    "errors": set(),
    "terminal": set(),
    "interrupts": set(),
    "writing": set(),
    "registry": set(),
    "compat": set(),
    "files": {"torch", "safetensors", "yaml"},
}
# … and, besides, inside functions.
LAZY: dict[str, set[str]] = {"core": {"huggingface_hub", "transformers"}}
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_utilities"}


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
    names = [name for name in names if name[1:3] not in WHOLE_FILES]
    parts = {
        n[1] if (ROOT / n[1]).is_dir() or (ROOT / f"{n[1]}.py").is_file() else "speech_peft"
        for n in names
        if n[1:]
    }
    return parts - {part_of(path)}


def theirs(path: Path, functions: bool) -> set[str]:
    roots = {name.split(".")[0] for name in imports(path, functions)}
    return roots - set(sys.stdlib_module_names) - {"speech_peft", "__future__"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_arrow_points_upwards_or_sideways(path):
    allowed = OURS.get(part_of(path))
    if allowed is not None:
        assert ours(path) <= allowed


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) in THEIRS], ids=named)
def test_the_low_layers_need_few_distributions(path):
    allowed = THEIRS[part_of(path)]
    assert theirs(path, functions=False) <= allowed
    if part_of(path) != "compat":  # which imports by name
        assert theirs(path, functions=True) <= allowed | LAZY.get(part_of(path), set())


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_lightning_lives_in_tasks_and_train_only(path):
    if part_of(path) not in {"tasks", "train"}:
        assert not theirs(path, functions=True) & LIGHTNING


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) == "infer"], ids=named)
def test_inference_never_reaches_lightning_through_a_task(path):
    assert "tasks" not in ours(path)


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


def guarded(path: Path) -> bool:
    """Whether importing a module of the backbones guards torchaudio, itself or by what it imports."""
    tree = ast.parse(path.read_text())
    if "guard_torchaudio()" in [ast.unparse(node) for node in tree.body]:
        return True
    names = imports(path, functions=False)
    near = [
        p
        for p in path.parent.glob("*.py")
        if any(n.startswith(f"speech_peft.backbones.{p.stem}.") for n in names)
    ]
    return any(guarded(other) for other in near if other != path)


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if part_of(p) == "backbones" and "transformers" in theirs(p, functions=True)],
    ids=named,
)
def test_a_backbone_imports_transformers_behind_the_guard_of_torchaudio(path):
    assert guarded(path)
