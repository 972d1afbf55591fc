"""A text in synthetic voices, by several processes at once: OUT/all.jsonl, for the trainings beside this."""

from concurrent.futures import ThreadPoolExecutor

from place import Place

VOICES = 60
"""Of each process, which draws its own."""


def main() -> None:
    place = Place.from_arguments()
    lines = (place.beside / "text.txt").read_text().splitlines()
    lines, processes = (lines[:24], 2) if place.tiny else (lines, 12)
    place.out.mkdir(parents=True, exist_ok=True)
    pieces = []
    for number in range(processes):
        piece = place.out / f"{number}.txt"
        piece.write_text("\n".join(lines[number::processes]) + "\n")
        pieces.append(piece)

    def spoken(number: int) -> float:
        folder = place.out / f"{number}"
        return place.run(
            "prepare", "speak", pieces[number], "-o", folder, "--voices", VOICES, "--seed", number
        )

    with ThreadPoolExecutor(processes) as pool:
        seconds = max(pool.map(spoken, range(processes)))
    made = place.joined("all", *(place.out / f"{number}" / "all.jsonl" for number in range(processes)))
    place.result(seconds=round(seconds, 1), clips=len(made.read_text().splitlines()))


if __name__ == "__main__":
    main()
