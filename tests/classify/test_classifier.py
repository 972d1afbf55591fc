"""Classes of recordings: alike whichever company they are heard in, adapters and clips both."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.audio.manifest import Row
from speech_peft.backbones.base import Backbone
from speech_peft.backbones.families import tiny
from speech_peft.classify.classifier import Classifier, evaluate
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.errors import ConfigError
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.lora import Lora
from speech_peft.methods.none import NoAdapter

RATE = 16_000
LABELS = ("dog", "rain", "clock")
LOW, TOP = (
    Bottleneck(width=4, sites=("layers.0.ffn",)),
    Bottleneck(
        width=4,
        sites=(
            "layers.1.attn",
            "layers.1.ffn",
        ),
    ),
)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """Every address of weights gives the random tiny backbone of its family."""

    def opened(name, weights, revision=None, offline=False, **options):
        return tiny(name, **options)

    monkeypatch.setattr("speech_peft.opening.loading.open_backbone", opened)


def save(folder: Path, method: Method, family: str = "whisper", options=None, sha256=None, **head) -> Path:
    """An adapter folder with random numbers in adapter and head."""
    options = {"context": "fit"} if options is None else options
    backbone = tiny(family, **options)
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": method})
    reads = ClassifierHead(backbone.dim, LABELS, depth=backbone.depth, **head)
    torch.manual_seed(sum(map(ord, folder.name)))
    with torch.no_grad():
        for tensor in [*model.parameters_of("a"), *reads.parameters()]:
            tensor.copy_(0.3 * torch.randn(tensor.shape))
    card = backbone.card().model_copy(update={"sha256": sha256})
    heads, config = {"classify": reads}, {"classify": reads.config()}
    return write(folder, model, "a", card, heads=heads, head_config=config)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    length = round(seconds * RATE)
    tone = np.sin(2 * np.pi * random.uniform(100, 3000) * np.arange(length) / RATE)
    return (0.1 * random.standard_normal(length) + 0.2 * tone).astype(np.float32)


def blocks_run(backbone: Backbone) -> list[int]:
    """A list that gets an entry whenever a block runs."""
    ran: list[int] = []
    for i, block in enumerate(backbone.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    return ran


MIXED = {
    "bottom": (LOW, {}),
    "top": (TOP, {}),
    "mix": (Lora(sites=("layers.1.attn.q",)), {"layer": "mix"}),
    "bare_mix": (NoAdapter(), {"layer": "mix", "pooling": "attention"}),
    "probe": (NoAdapter(), {}),
    "first": (NoAdapter(), {"layer": 1, "head": "mlp"}),
    "second": (TOP, {"layer": 2, "multi_label": True}),
    "stack": (Bottleneck(width=4, sites=("stack",)), {}),
}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("whisper", {"context": "fit"}),
        ("ast", {"context": "fit"}),
        ("conformer", {"family": "wav2vec2-bert"}),
    ],
)
def test_adapters_in_one_pass_hear_what_each_hears_alone(tmp_path, family, options):
    folders = [save(tmp_path / name, m, family, options, **head) for name, (m, head) in MIXED.items()]
    clips = [noise(0.8), noise(1.7, 1), noise(0.8, 2)]
    together = list(Classifier(folders).classify(clips))
    seen = set()
    for folder in folders:
        for one, all_ in zip(Classifier(folder).classify(clips), together, strict=True):
            assert one.error is None
            np.testing.assert_array_equal(
                all_.heard[folder.name].probabilities, one.heard[folder.name].probabilities
            )
            seen.add(one.heard[folder.name].probabilities.tobytes())
    assert len(seen) == len(MIXED) * len(clips)  # they differ, so the law says something


def test_a_block_that_no_adapter_changed_yet_runs_once(tmp_path):
    folders = [save(tmp_path / name, TOP) for name in ("a", "b", "c")]
    folders.append(save(tmp_path / "probe", NoAdapter()))
    classifier = Classifier(folders)
    ran = blocks_run(classifier.backbone)
    list(classifier.classify([noise(1.0)]))
    assert sorted(ran) == [0, 1, 1, 1, 1]  # the last bare one for the probe


def test_a_probe_of_a_lower_block_runs_none_above_it(tmp_path):
    classifier = Classifier(save(tmp_path / "first", NoAdapter(), layer=1))
    ran = blocks_run(classifier.backbone)
    list(classifier.classify([noise(1.0)]))
    assert ran == [0]


def test_probabilities_sum_to_one_or_stand_each_for_itself(tmp_path):
    folders = [save(tmp_path / "one", TOP), save(tmp_path / "many", TOP, multi_label=True)]
    (result,) = Classifier(folders).classify(noise(1.0))
    assert result.heard["one"].probabilities.sum() == pytest.approx(1.0)
    assert result.heard["many"].probabilities.sum() != pytest.approx(1.0)


def test_a_clip_hears_the_same_alone_and_among_others(tmp_path):
    classifier = Classifier(save(tmp_path / "a", TOP))
    clips = [noise(seconds, i) for i, seconds in enumerate((0.3, 2.0, 0.31, 0.9, 2.0))]
    together = [result.heard["a"].probabilities for result in classifier.classify(clips)]
    for clip, among_others in zip(clips, together, strict=True):
        (alone,) = classifier.classify(clip)
        np.testing.assert_allclose(alone.heard["a"].probabilities, among_others, atol=1e-6)


def test_a_short_clip_is_heard_at_its_own_length(tmp_path):
    classifier = Classifier(save(tmp_path / "a", TOP))
    seen = []
    prepare = classifier.backbone.prepare
    classifier.backbone.prepare = lambda audio, lengths, pad_to: (
        seen.append(audio.shape[1]) or prepare(audio, lengths, pad_to)
    )  # type: ignore[method-assign]
    (result,) = classifier.classify(noise(0.7))
    assert seen == [round(0.7 * RATE)]
    (window,) = result.heard["a"].windows
    assert (window.start, window.end) == (0.0, pytest.approx(0.7))


def test_a_long_recording_is_the_mean_of_its_windows_and_each_is_what_it_is_alone(tmp_path):
    classifier = Classifier(save(tmp_path / "a", TOP), window_seconds=1.0, batch_seconds=3.0)
    samples = noise(4.25)
    (result,) = classifier.classify(samples)
    windows = result.heard["a"].windows
    assert [(w.start, w.end) for w in windows] == [
        *((0.5 * i, 0.5 * i + 1.0) for i in range(7)),
        (3.25, 4.25),
    ]
    mean = np.mean([w.probabilities for w in windows], axis=0)
    np.testing.assert_allclose(result.heard["a"].probabilities, mean, atol=1e-6)
    for window in windows:
        (alone,) = classifier.classify(samples[round(window.start * RATE) : round(window.end * RATE)])
        np.testing.assert_allclose(window.probabilities, alone.heard["a"].probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.full(100, np.nan, np.float32), "NaN"),
    ],
)
def test_samples_that_are_none_are_an_error_with_a_reason(tmp_path, samples, reason):
    good, bad = Classifier(save(tmp_path / "a", TOP)).classify([noise(0.5), samples])
    assert good.error is None
    assert reason in (bad.error or "")
    assert bad.stage == "decode"
    assert not bad.heard


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32)])
def test_silence_and_a_single_sample_are_classified(tmp_path, samples):
    (result,) = Classifier(save(tmp_path / "a", TOP)).classify(samples)
    assert result.error is None
    assert np.isfinite(result.heard["a"].probabilities).all()


def test_a_window_in_which_the_model_fails_takes_only_its_file_with_it(tmp_path, monkeypatch):
    classifier = Classifier(save(tmp_path / "a", TOP))
    probabilities = classifier._probabilities

    def fails(batch):
        if any(piece.file.index == 1 for piece in batch):
            raise RuntimeError("no")
        return probabilities(batch)

    monkeypatch.setattr(classifier, "_probabilities", fails)
    results = list(classifier.classify([noise(0.6, i) for i in range(4)]))
    assert [result.error for result in results] == [None, "RuntimeError: no", None, None]
    assert results[1].stage == "classify"


def test_numbers_that_are_none_are_an_error_that_names_the_adapter(tmp_path):
    folders = [save(tmp_path / "good", TOP), save(tmp_path / "bad", TOP)]
    classifier = Classifier(folders)
    with torch.no_grad():
        classifier.heads["bad"].read.bias.fill_(torch.nan)  # type: ignore[union-attr]
    (result,) = classifier.classify(noise(0.5))
    assert "adapter bad" in (result.error or "")


def test_evaluate_keeps_rows_in_order_and_bad_ones_as_rows(tmp_path):
    classifier = Classifier(save(tmp_path / "a", TOP), window_seconds=1.0)
    soundfile.write(tmp_path / "a.wav", noise(3.0), RATE)
    rows = [
        Row("late", tmp_path / "a.wav", start=2.0, label="dog", speaker="ann", extra={"fold": 2}),
        Row("gone", tmp_path / "gone.wav", label="rain"),
        Row("early", tmp_path / "a.wav", duration=0.5, label="clock"),
    ]
    late, gone, early = evaluate(classifier, rows)
    assert (late.id, late.label, late.speaker, late.columns) == ("late", "dog", "ann", {"fold": 2})
    assert (late.start, late.end, early.start, early.end) == (2.0, 3.0, 0.0, 0.5)
    assert sum(late.probabilities.values()) == pytest.approx(1.0)
    assert list(early.probabilities) == list(LABELS)
    assert gone.probabilities == {}
    assert "no such file" in (gone.error or "")


def test_evaluating_one_of_several_asks_which(tmp_path):
    classifier = Classifier([save(tmp_path / "a", TOP), save(tmp_path / "b", LOW)])
    soundfile.write(tmp_path / "a.wav", noise(0.5), RATE)
    rows = [Row("a", tmp_path / "a.wav", label="dog")]
    with pytest.raises(ConfigError, match="a, b"):
        evaluate(classifier, rows)
    with pytest.raises(ConfigError, match="none is called 'c'"):
        evaluate(classifier, rows, "c")
    (result,) = classifier.classify(tmp_path / "a.wav")
    (found,) = evaluate(classifier, rows, "b")
    assert list(found.probabilities.values()) == pytest.approx(result.heard["b"].probabilities)


def test_adapters_of_two_backbones_or_opened_in_two_ways_are_refused(tmp_path):
    one = save(tmp_path / "one", TOP)
    full = save(tmp_path / "full", TOP, options={"context": "full", "seconds": 2.0})
    with pytest.raises(ConfigError, match="context is 'fit' and 'full'"):
        Classifier([one, full])
    with pytest.raises(ConfigError, match="ast"):
        Classifier([one, save(tmp_path / "other", TOP, "ast", {"context": "fit"})])
    old, new = (save(tmp_path / name, TOP, sha256=name) for name in ("old", "new"))
    with pytest.raises(ConfigError, match="with other weights"):
        Classifier([old, new])


def test_adapters_of_one_name_are_told_apart_by_the_folder_above(tmp_path):
    for run in ("x", "y"):
        (tmp_path / run).mkdir()
    folders = [save(tmp_path / "x/a", TOP), save(tmp_path / "y/a", LOW), save(tmp_path / "b", LOW)]
    assert list(Classifier(folders).heads) == ["x/a", "y/a", "b"]
    with pytest.raises(ConfigError, match="twice"):
        Classifier([folders[0], str(folders[0])])


def test_an_adapter_without_classes_is_refused_by_name(tmp_path):
    backbone = tiny("whisper", context="fit")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": TOP})
    folder = write(tmp_path / "speech", model, "a", backbone.card())
    with pytest.raises(ConfigError, match="adapter speech: it has no head"):
        Classifier(folder)


def test_a_window_longer_than_the_backbone_hears_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at most 30 s"):
        Classifier(save(tmp_path / "a", TOP), window_seconds=31)
    with pytest.raises(ConfigError, match="none is given"):
        Classifier([])
