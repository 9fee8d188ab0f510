"""Mutated pictures and videos: their recipe is read and followed, or refused in one line."""

import io
import json
import struct
import zlib
from itertools import islice
from random import Random

import pytest
import torch
from PIL.PngImagePlugin import PngInfo

from biggan.errors import InputError
from biggan.images import make_grid, save_png
from biggan.provenance import (
    GridProvenance,
    LatentGridProvenance,
    LatentProvenance,
    MorphProvenance,
    Provenance,
    file_stem,
)
from biggan.provenance_files import read_provenance
from biggan.sampling import plan_latents
from biggan.video import make_frame, save_video
from mutations import MUTATIONS, NESTED, limited_memory, mutated_bytes, mutated_value


class Text(str):
    """A recipe's text in place of a recipe."""

    def to_json(self):
        return str(self)


def mutated_text(values, random):
    """JSON of which a value, or a few characters, are others."""
    if random.random() < 0.05:
        return NESTED
    text = json.dumps(mutated_value(values, random))
    if random.random() < 0.3:
        text = mutated_bytes(text.encode(), random).decode("latin-1")
    return text


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks_of(png):
    """The chunks of a PNG, kind and data."""
    found, place = [], 8
    while place < len(png):
        (size,) = struct.unpack_from(">I", png, place)
        found.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def mutated_chunks(png, random):
    """A PNG with one chunk changed, added, doubled, dropped or elsewhere, and right checksums."""
    chunks = chunks_of(png)
    place = random.randrange(len(chunks))
    kind, data = chunks[place]
    change = random.randrange(5)
    if change == 0:
        chunks[place] = kind, mutated_bytes(data, random)
    elif change == 1:
        chunks.insert(random.randrange(len(chunks) + 1), chunks.pop(place))
    elif change == 2:
        chunks.insert(place, chunks[place])
    elif change == 3:
        bomb = zlib.compress(bytes(1 << 24))
        odd = (
            (b"zTXt", b"biggan\0\0" + bomb),
            (b"iTXt", b"biggan\0\1\0\0\0" + bomb),
            (b"iTXt", b"biggan\0\1\1\0\0" + bomb[:50]),
            (b"tEXt", b"biggan"),
            (b"iCCP", b"biggan\0\0" + bomb),
            (b"acTL", struct.pack(">II", 2**31, 0)),
            (b"fcTL", bytes(3)),
            (b"PLTE", bytes(4)),
            (b"eXIf", data),
        )
        chunks.insert(random.randrange(len(chunks)), random.choice(odd))
    else:
        size = struct.pack(">II", *random.choices((0, 1, 4, 2**16, 2**31 - 1, 2**32 - 1), k=2))
        chunks[0] = b"IHDR", size + chunks[0][1][8:]
    return png[:8] + b"".join(chunk(*c) for c in chunks)


def png_files(gan, folder, random):
    """A grid, then mutants of it, of a picture and of paths."""
    pictures = gan.plan(["tabby"], 2, 0.5, seed=3)
    morph = gan.plan_morph(0, 1, 3, 1, 0.5, 0, 1)
    grid = GridProvenance(2, tuple(pictures))
    latents = plan_latents(gan, torch.zeros(1, 12), gan.embed("tabby"), 0.5, ["a"])
    others = (*latents, LatentGridProvenance(1, tuple(latents)))
    image, path = gan.sample("tabby")[0], folder / "a.png"
    save_png(image, path, grid)
    yield path
    while True:
        values = json.loads(random.choice((pictures[0], morph, grid, *others)).to_json())
        texts = PngInfo()
        texts.add_text("biggan", mutated_text(values, random), zip=random.random() < 0.3)
        contents = io.BytesIO()
        image.save(contents, "PNG", pnginfo=texts)
        change = random.randrange(3)
        mutate = (lambda png, _: png, mutated_bytes, mutated_chunks)[change]
        path.write_bytes(mutate(contents.getvalue(), random))
        yield path


def videos(ending):
    def files(gan, folder, random):
        recipe = gan.plan_video([(0, 0), (1, 0)], 4, truncation=0.5)
        frames, path = [make_frame(gan.sample("tabby"))] * 2, folder / f"a{ending}"
        save_video(frames, path, 20, provenance=recipe)
        yield path
        while True:
            text = mutated_text(json.loads(recipe.to_json()), random)
            text = text.encode("ascii", "backslashreplace").decode()
            save_video(frames, path, 20, provenance=Text(text))
            if random.random() < 0.5:
                path.write_bytes(mutated_bytes(path.read_bytes(), random))
            yield path

    files.__name__ = ending[1:]
    return files


def followed(gan, path):
    """Make the first picture of what a file says."""
    if path.suffix != ".png":
        return next(gan.draw_video(read_provenance(path)))
    recipe = read_provenance(path)
    if isinstance(recipe, MorphProvenance):
        return next(gan.draw_morph(recipe))
    file_stem(recipe)
    if isinstance(recipe, Provenance | LatentProvenance):
        return next(gan.draw([recipe]))
    parts = recipe.latents if isinstance(recipe, LatentGridProvenance) else recipe.pictures
    pictures = [next(gan.draw([picture])) for picture in parts]
    return make_grid(pictures, recipe.columns)


KINDS = png_files, videos(".gif"), videos(".webp"), videos(".mp4")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.timeout(120 + MUTATIONS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_mutants_are_followed_or_refused_in_one_line(tiny, tmp_path, kind):
    mutants, messages = kind(tiny, tmp_path, Random(kind.__name__)), []
    followed(tiny, next(mutants))  # the original
    with limited_memory():
        for path in islice(mutants, MUTATIONS):
            try:
                followed(tiny, path)
            except InputError as error:
                messages.append(str(error))
    assert all(message.isprintable() for message in messages)
    assert max(map(len, messages)) < 1000
