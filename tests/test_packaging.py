"""What the project says about itself: versions that fit together, files that are where they must be."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import speech_peft

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
PINS = {pin.name.lower().replace("_", "-"): pin for pin in map(Requirement, LINES)}
DECLARED = [
    Requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
]


def test_every_declared_dependency_is_pinned_within_its_range():
    for wanted in DECLARED:
        pin = PINS[wanted.name.lower().replace("_", "-")]
        (version,) = pin.specifier
        assert wanted.specifier.contains(version.version), f"{pin} is outside {wanted}"


def test_constraints_pin_exactly_and_name_no_place():
    for pin in PINS.values():
        assert re.fullmatch(r"==[^+*]+", str(pin.specifier)), f"{pin}: one version, no local tag"
        assert pin.url is None


def test_the_malware_releases_of_lightning_are_excluded():
    (lightning,) = (wanted for wanted in DECLARED if wanted.name == "lightning")
    assert not lightning.specifier.contains("2.6.2")
    assert not lightning.specifier.contains("2.6.3")
    assert lightning.specifier.contains("2.6.6")


def test_torchaudio_is_installed_by_nobody_of_ours():
    # Beside a torch for other hardware its wheel breaks every import of transformers that comes before ours.
    assert "torchaudio" not in {wanted.name for wanted in DECLARED}
    assert "torchaudio" not in PINS


def test_version_is_said_once():
    assert PROJECT["version"] == speech_peft.__version__


def test_recipes_are_found_by_name_and_link_from_the_top():
    from speech_peft.recipe.config import bundled

    assert "asr/whisper_parallel" in bundled()
    assert (ROOT / "recipes").resolve() == Path(speech_peft.__file__).parent / "recipes"


def test_every_dependency_has_its_reason_in_contributing():
    reasons = (ROOT / "CONTRIBUTING.md").read_text().partition("Why each dependency")[2]
    missing = {wanted.name for wanted in DECLARED if wanted.name not in reasons}
    assert not missing


@pytest.mark.parametrize("script", ["scripts/test", ".ci/run"])
def test_a_script_is_executable_and_well_formed(script: str):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)
