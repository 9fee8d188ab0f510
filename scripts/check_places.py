"""Try every place of every published model, from a machine with internet.

    python scripts/check_places.py FOLDER [NAME ...]

For every place: fetch its files, print their sizes and sha256, build the network, compare it with
what the registry promises, and write a picture of class 207 (class 0 of networks with fewer
classes). At the end the sha256 of all files that came are written to FOLDER/sha256.txt, as lines
for the table SHA256 of `biggan/weights/published.py`, and a summary to FOLDER/places.md.

A model takes up to 1.2 GB on the disk, which is freed after each place.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from biggan.errors import InputError
from biggan.gan import Gan
from biggan.weights.published import (
    PUBLISHED,
    Kind,
    Place,
    PublishedModel,
    RemoteFile,
    fetch_file,
    host_of,
    read_place,
)

CLASS = 207


def check(
    model: PublishedModel, kind: Kind, place: Place, folder: Path, pictures: Path
) -> tuple[list[tuple[RemoteFile, int, str]], str]:
    """Fetch and read a place: the rows of the table, and what is wrong with it."""
    rows = []
    try:
        for file in place:
            digest = fetch_file(file, folder)
            size = (folder / file.name).stat().st_size
            pinned = "as stated" if file.sha256 else "not stated"
            print(f"  {file.url}\n    {size:,} bytes, sha256 {digest} ({pinned})", flush=True)
            rows.append((file, size, digest))
        loaded = read_place(model, kind, place, folder)
    except InputError as error:
        return rows, str(error)
    if kind == "generator":
        gan = Gan(loaded.network, loaded.description, loaded.sha256)
        index = CLASS if gan.config.num_classes > CLASS else 0
        name = f"{model.name}-{host_of(place)}-class-{index}.png".replace(":", "-")
        gan.sample(index, num=1)[0].save(pictures / name)
    return rows, ""


def main() -> int:
    """Parse the arguments and check."""
    parser = argparse.ArgumentParser(description="Try every place of every published model.")
    parser.add_argument("folder", type=Path, help="where pictures, tables and downloads go")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; all by default")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(PUBLISHED)):
        parser.error(f"no published model {unknown[0]!r}; there are {', '.join(PUBLISHED)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    digests, summary = {}, ["| model | place | files | result |", "| --- | --- | --- | --- |"]
    failed = False
    for name in options.names or PUBLISHED:
        model = PUBLISHED[name]
        places: list[tuple[Kind, Place]] = [("generator", place) for place in model.places]
        if model.discriminator:
            places.append(("discriminator", model.discriminator))
        for kind, place in places:
            print(f"{name}, {kind}, {host_of(place)}", flush=True)
            with tempfile.TemporaryDirectory(dir=options.folder) as downloads:
                rows, fault = check(model, kind, place, Path(downloads), options.folder)
            print(f"  {fault or 'right'}", flush=True)
            failed |= bool(fault)
            digests |= {file.url: digest for file, _, digest in rows if not fault}
            files = "; ".join(
                f"{file.name}, {size:,} bytes, {digest}" for file, size, digest in rows
            )
            summary.append(f"| {name} ({kind}) | {host_of(place)} | {files} | {fault or 'right'} |")
    lines = [f'    "{url}": "{digest}",' for url, digest in digests.items()]
    (options.folder / "sha256.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    (options.folder / "places.md").write_text("\n".join([*summary, ""]), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
