"""Write the table of ImageNet's classes that comes with the package.

The order of the 1000 classes and their names are taken from the wheel of timm (Apache-2.0,
https://github.com/huggingface/pytorch-image-models): `imagenet_synsets.txt` has the WordNet ids in
the order of the class indices, `imagenet_synset_to_lemma.txt` the synonyms of every id, which are
WordNet's (Princeton University, https://wordnet.princeton.edu/license-and-commercial-use).

    python scripts/make_imagenet_classes.py                      # fetches the wheel
    python scripts/make_imagenet_classes.py path/to/timm.whl     # reads one that is there
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "timm==1.0.31"
TABLE = Path(__file__).parents[1] / "src" / "biggan" / "imagenet_classes.tsv"

_SYNSETS = "timm/data/_info/imagenet_synsets.txt"
_LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"


def make_table(wheel: Path) -> str:
    """Make the table from a wheel of timm.

    Returns:
        A line for each class in the order of the indices: WordNet id, tab, synonyms with ", "
        between them.

    Raises:
        ValueError: An id comes twice or has no synonyms.
    """
    with zipfile.ZipFile(wheel) as archive:
        ids = archive.read(_SYNSETS).decode().split()
        lemmas = archive.read(_LEMMAS).decode().splitlines()
    if len(set(ids)) < len(ids):
        raise ValueError(f"{_SYNSETS} has an id twice")
    names = dict(line.split("\t") for line in lemmas)
    return "".join(f"{wordnet_id}\t{_clean(names.get(wordnet_id, ''))}\n" for wordnet_id in ids)


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel with pip; returns its path."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    what = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    subprocess.run([*pip, *what], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _clean(name: str) -> str:
    """Single spaces, and ", " between synonyms: what menus and searches expect."""
    synonyms = [" ".join(synonym.split()) for synonym in name.split(",")]
    if not all(synonyms):
        raise ValueError(f"{_LEMMAS} has no name, or an empty synonym, for a class: {name!r}")
    return ", ".join(synonyms)


def main() -> None:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description="Write the table of ImageNet's classes.")
    parser.add_argument(
        "wheel", type=Path, nargs="?", help=f"a wheel of timm; {REQUIREMENT} is fetched if left out"
    )
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        table = make_table(wheel or fetch_wheel(Path(folder)))
    TABLE.write_text(table, encoding="utf-8", newline="\n")
    print(f"{TABLE}: {len(table.splitlines())} classes")


if __name__ == "__main__":
    main()
