"""The same of Whisper base, behind the encoder that the part `lengths` taught to hear audio of any length."""

from diffusion import learn
from place import Place


def main() -> None:
    place = Place.from_arguments()
    taught = place.out.parent / "lengths" / "run" / "lengths"
    lengths = taught if (taught / "adapter.json").exists() else place.adapter("lengths_base")
    learn(place, "asr/whisper_diffusion_base", place.weights("base"), lengths)


if __name__ == "__main__":
    main()
