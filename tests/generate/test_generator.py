"""Sounds from a mel diffusion: the same from the same seed, the base's at scale 0, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from speech_peft.audio import io
from speech_peft.backbones.families import open_backbone, tiny
from speech_peft.backbones.mel_diffusion import untrained
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.decoders.mel_diffusion.sample import Sampling
from speech_peft.errors import ConfigError
from speech_peft.generate.__main__ import main
from speech_peft.generate.generator import Generator
from speech_peft.methods.attention import Attention
from speech_peft.methods.timestamps import Timestamps
from tests.contract.laws import fill

HOW = Sampling(steps=3)
KIND = Attention(query="frozen", keys="new:tokens", out="frozen", rank=4, sites=("layers.*.cross",))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Weights, and an adapter in them that knows moments."""
    folder = tmp_path_factory.mktemp("generator")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    network = untrained(["dog", "rain"], **sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder / "weights")
    backbone = open_backbone("mel_diffusion", folder / "weights")
    model = AdaptedModel(backbone.module, backbone.sites(), {"when": Timestamps(width=8)})
    fill(model, "when", 0)
    save.write(folder / "when", model, "when", backbone.card())
    return folder / "weights", folder / "when"


@pytest.fixture(scope="module")
def generator(folders) -> Generator:
    return Generator(folders[1])


def test_the_weights_come_back_with_their_classes(folders):
    backbone = open_backbone("mel_diffusion", folders[0])
    assert backbone.classes == ("dog", "rain")
    assert backbone.numbers_of(["rain", None]).tolist() == [1, -1]


def test_a_sound_is_as_long_as_was_asked_and_the_same_each_time(generator):
    first, again = (generator("dog", intervals=[(0.1, 0.2)], seconds=0.5, how=HOW) for _ in range(2))
    assert len(first) == 8000
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_a_sound_in_a_batch_is_the_same_as_alone(generator):
    told = [[(0.1, 0.2)], []]
    both = generator.spectrograms(generator.noise(0.5, [0, 1]), ["dog", None], None, told, HOW)
    one = generator.spectrograms(generator.noise(0.5, [1]), [None], None, told[1:], HOW)
    torch.testing.assert_close(both[1:], one, rtol=0, atol=1e-4)


def test_at_scale_0_the_sample_is_the_bare_models_bit_for_bit(folders):
    generator = Generator(folders[1])
    noise, told = generator.noise(0.5, [3]), [[(0.1, 0.3)]]
    with generator.model.using():
        bare = generator.spectrograms(noise, ["dog"], None, None, HOW)
    assert not torch.equal(generator.spectrograms(noise, ["dog"], None, told, HOW), bare)
    for name, sites in generator.model.sites.items():
        for site in sites:
            generator.model.at(name, site).scale = 0.0
    assert torch.equal(generator.spectrograms(noise, ["dog"], None, told, HOW), bare)


def test_steps_one_at_a_time_in_parallel_are_ddims_bit_for_bit_and_several_come_near(generator):
    def made(**how) -> torch.Tensor:
        return generator.spectrograms(generator.noise(0.5, [0]), ["dog"], how=Sampling(steps=12, **how))

    alone = made()
    assert torch.equal(made(degree=1, warmup=0), alone)
    assert (made(degree=2, warmup=5) - alone).abs().mean() < 0.1 * alone.abs().mean()


def test_a_kind_attends_in_the_cross_attention_and_only_to_tokens():
    backbone = tiny("mel_diffusion")
    model = AdaptedModel(backbone.module, backbone.sites(), {"kind": KIND})
    assert {site.name for site in model.sites["kind"]} == {"layers.0.cross", "layers.1.cross"}
    listens = Attention(sites=("layers.*.cross",))
    with pytest.raises(ConfigError, match=r"layers\.0\.cross frames ask a condition"):
        AdaptedModel(tiny("mel_diffusion").module, backbone.sites(), {"kind": listens})


def test_a_spectrogram_becomes_sound_and_this_the_spectrogram_again(generator):
    time = np.arange(8000) / 16_000
    samples = (0.5 * np.sin(2 * np.pi * 700 * time) * (time > 0.2)).astype(np.float32)
    backbone, lengths = generator.backbone, torch.tensor([8000])
    values = backbone.prepare(torch.from_numpy(samples)[None], lengths).values
    (sound,) = generator.waveforms(values)
    again = backbone.prepare(torch.from_numpy(sound)[None], lengths).values
    loud = values > 0
    assert (again - values)[loud].abs().mean() < 0.25


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"kind": "cat"}, "no class is called 'cat'"),
        ({"like": np.zeros(8000, np.float32)}, "no adapter here listens"),
        ({"seconds": 0.0}, "longer than 0"),
        ({"intervals": [(0.5, 0.4)]}, "expected seconds"),
    ],
)
def test_what_nobody_can_make_is_refused(generator, asked, why):
    with pytest.raises(ConfigError, match=why):
        generator(**{"seconds": 0.5, "how": HOW, **asked})


def test_moments_without_an_adapter_are_refused(folders):
    with pytest.raises(ConfigError, match="no adapter here knows moments"):
        Generator(weights=folders[0])("dog", intervals=[(0.1, 0.2)], seconds=0.5, how=HOW)


def test_the_command_writes_a_sound_and_nothing_over_another(folders, tmp_path, capsys):
    out = tmp_path / "dog.wav"
    asked = [str(out), "--adapter", str(folders[1]), "--kind", "dog", "--seconds", "0.5", "--steps", "2"]
    assert main([*asked, "--at", "0.1-0.2", "--at", "0.3-0.4"]) == 0
    assert io.info(out).seconds == 0.5
    assert main(asked) == 2
    assert "--overwrite" in capsys.readouterr().err
