"""torchaudio may be broken in any way; transformers must import all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
from speech_peft.compat import guard_torchaudio
found = guard_torchaudio()
print("whole" if found is not None and hasattr(found, "functional") else found)
import speech_peft.backbones.base
from transformers import WhisperConfig, WhisperFeatureExtractor
"""


def run(fake: Path, code: str = CHECK) -> str:
    env = {**os.environ, "PYTHONPATH": f"{fake}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def plant(folder: Path, init: str, **modules: str) -> Path:
    package = folder / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(init)
    for name, code in modules.items():
        (package / f"{name}.py").write_text(code)
    return folder


def test_broken_compiled_part_is_replaced_by_a_stand_in(tmp_path):
    fake = plant(
        tmp_path,
        "from . import _extension, functional",
        _extension="raise OSError('libc10_cuda.so: cannot open shared object file')",
        functional="from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE\n"
        "assert not _IS_TORCHAUDIO_EXT_AVAILABLE",
    )
    assert run(fake) == "whole"


def test_hopelessly_broken_torchaudio_is_hidden_from_transformers(tmp_path):
    assert run(plant(tmp_path, "raise ZeroDivisionError('whatever it is')")) == "None"


def test_working_torchaudio_is_left_as_it_is(tmp_path):
    assert run(plant(tmp_path, "functional = 1")) == "whole"


def test_what_needs_the_compiled_part_says_so(tmp_path):
    fake = plant(
        tmp_path,
        "from . import _extension, functional",
        _extension="raise OSError('no')",
        functional="from torchaudio._extension import fail_if_no_align\n"
        "@fail_if_no_align\ndef forced_align():\n    pass",
    )
    code = """
from speech_peft.compat import guard_torchaudio
try:
    guard_torchaudio().functional.forced_align()
except RuntimeError as error:
    print(error)
"""
    assert "torchaudio.forced_align needs the compiled part" in run(fake, code)


ABSENT = "import sys; sys.modules['torchaudio'] = None"  # as pip leaves it: nothing here asks for it
STOCK = "from transformers import WhisperForConditionalGeneration"
OURS_FIRST = f"import sys, speech_peft; assert 'torch' not in sys.modules; {STOCK}"
OURS_BETWEEN = f"""
try:
    {STOCK}
except Exception:
    pass
else:
    raise AssertionError("the fake is not broken")
import speech_peft
{STOCK}
"""
MISSING_LIBRARY = "raise OSError('libc10_cuda.so: cannot open shared object file')"


@pytest.mark.slow  # two imports of transformers in processes of their own
def test_a_stock_model_is_imported_after_us_beside_a_torchaudio_for_another_torch(tmp_path):
    init = "from . import _extension, functional"
    run(plant(tmp_path, init, _extension=MISSING_LIBRARY, functional=""), OURS_FIRST)


@pytest.mark.slow
def test_an_import_of_transformers_that_failed_before_us_works_after_us(tmp_path):
    run(plant(tmp_path, MISSING_LIBRARY), OURS_BETWEEN)


@pytest.mark.slow  # transformers in a process of its own
def test_a_stock_model_is_imported_before_us_where_nobody_installed_torchaudio(tmp_path):
    code = f"{ABSENT}\n{STOCK}\nimport speech_peft\nprint(speech_peft.Lora(rank=2).rank)"
    assert run(tmp_path, code) == "2"


def test_looking_for_transformers_imports_nothing(tmp_path):
    code = "import sys, speech_peft, importlib.util as u\nassert u.find_spec('transformers')\n"
    assert (
        run(tmp_path, f"{code}print({{'torch', 'torchaudio', 'transformers'}} & set(sys.modules))") == "set()"
    )
