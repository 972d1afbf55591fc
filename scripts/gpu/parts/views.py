"""Several microphones heard the same: tiny.en learns to hear each with the others, in simulated rooms."""

from importlib.util import find_spec

from place import Place


def main() -> None:
    place = Place.from_arguments()
    fit = place.adapter("fit")
    begun = {"adapters__fit": f"{{from: {fit}}}", "train": "[views, fit]"} if fit else {}
    kind = "simulated" if find_spec("pyroomacoustics") else "synthetic"
    rooms = f"{{kind: array, views: 4, rt60: [0.2, 0.8], rooms: {kind}}}"
    train = place.joined("train", *place.speech())
    seconds = place.train(
        "asr/whisper_views",
        place.weights("tiny.en"),
        "strangers_valid",
        place.left(),
        120,
        data__train=train,
        data__degrade=f"[{rooms}, {{kind: noise, snr: [-5, 20]}}]",
        data__workers=0 if place.tiny else 6,
        trainer__valid_every_steps=200,
        **begun,
    )
    place.trained(seconds, rooms=kind, fit=fit)


if __name__ == "__main__":
    main()
