"""The same small pictures as every form of source that can be packed."""

import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image

from tiny import refusal as refusal  # for the tests of data


def encode(image, kind="PNG", **options):
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed, size=8):
    """A picture of noise, as a file and as uint8 (3, size, size)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels)), pixels.transpose(2, 0, 1)


def wide(levels):
    """A grey PNG with 16 bits: an array of levels, or one level everywhere."""
    return encode(Image.fromarray(np.broadcast_to(np.uint16(levels), (8, 8))))


def pictures(per_class, classes=("cat", "dog"), size=8):
    """{"cat/0000.png": bytes, ...}, the same pictures every time."""
    return {
        f"{name}/{number:04}.png": png(1000 * label + number, size)[0]
        for label, name in enumerate(classes)
        for number in range(per_class)
    }


def cut_short(files, *names):
    """The same files, some of them truncated."""
    return files | {name: files[name][:-40] for name in names}


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def shuffled(files, seed=0):
    """The same pictures in another order."""
    names = list(files)
    np.random.default_rng(seed).shuffle(names)
    return {name: files[name] for name in names}


def classes_of(files):
    return sorted({name.split("/")[0] for name in files})


def write_parquet(path, files, *, image="image", named=True, metadata=True, row_group_size=3):
    """As the `datasets` library does: a struct, and the class names in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    classes = classes_of(files)
    labels = [classes.index(name.split("/")[0]) for name in files]
    if named:
        images = [{"bytes": b, "path": name.split("/")[-1]} for name, b in files.items()]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    else:
        images, kind = list(files.values()), pa.binary()
    table = pa.table({image: pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    if metadata:
        features = {
            image: {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": classes},
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_archive(path, members)


def write_archive(path, files):
    """A tar of files or (name, contents), compressed as its name says."""
    members = files.items() if isinstance(files, dict) else files
    mode = "w:" + {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(
        path.suffix.lower(), ""
    )
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, files, per_shard=4, label="cls"):
    """Shards with numbers as labels and a table beside them, or with names in JSON."""
    classes = classes_of(files)
    members = []
    for name, content in files.items():
        stem, own = name.removesuffix(".png"), name.split("/")[0]
        members.append((name, content))
        if label == "cls":
            members.append((f"{stem}.cls", str(classes.index(own)).encode()))
        else:
            members.append((f"{stem}.json", json.dumps({"label": own}).encode()))
    step = 2 * per_shard
    for shard, start in enumerate(range(0, len(members), step)):
        write_tar(folder / f"train-{shard:04}.tar", members[start : start + step])
    if label == "cls":
        (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return folder


FORMS = {
    "folder": lambda path, files: write_folder(path / "pets", files),
    "zip": lambda path, files: write_zip(path / "pets.zip", files),
    "parquet": lambda path, files: write_parquet(path / "pets.parquet", shuffled(files)),
    "parquet folder": lambda path, files: (
        write_parquet(path / "pets" / "train-00000-of-00002.parquet", shuffled(files)).parent
    ),
    "shards": lambda path, files: write_shards(path / "pets", shuffled(files)),
    "shards with names": lambda path, files: write_shards(
        path / "pets", shuffled(files), label="json"
    ),
    "pattern": lambda path, files: (
        write_shards(path / "pets", shuffled(files)) / "train-{0000..0003}.tar"
    ),
}
"""Writers of the same pictures to a folder, of which each returns the source to load."""
