"""Images in arrays: CIFAR's batches, as Python pickles and as binary files; MNIST's; NumPy's.

    data_batch_1 ..., test_batch            CIFAR-10; with `.bin` the binary version
    train, test                             CIFAR-100, with `meta` or fine_label_names.txt beside
    train-images-idx3-ubyte, t10k-...       MNIST and those like it, also with `.gz`
    *.npy, *.npz                            uint8 (N, H, W, C), such as the samples of guided
                                            diffusion; in a .npz the labels too

A pickle is a program. Here it can only call the functions of `_unpickle`, which keep what the
pickle says of an array and run nothing. https://www.cs.toronto.edu/~kriz/cifar.html,
http://yann.lecun.com/exdb/mnist/
"""

import gzip
import io
import itertools
import logging
import math
import pickle
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biggan.data.decoding import MOST_BYTES, one_line
from biggan.data.layout import Item, Label
from biggan.errors import InputError, quoted

logger = logging.getLogger("biggan.data")

_IDX = re.compile(r"(.*-)?(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
_CIFAR = re.compile(r"(data|test)_batch(_\d+)?(\.bin)?")
_CIFAR_100 = re.compile(r"(train|test)(\.bin)?")  # with one of these beside it:
_NAMES_OF_100 = ("meta", "fine_label_names.txt")
_SIDE = 32  # of CIFAR's images
_PIXELS = 3 * _SIDE**2


def to_pnm(image: NDArray[np.uint8]) -> bytes:
    """An image, (H, W) or (H, W, 3), as a PNM file."""
    kind, (height, width) = 6 if image.ndim == 3 else 5, image.shape[:2]
    return b"P%d %d %d 255\n" % (kind, width, height) + image.tobytes()


def list_arrays(names: Collection[str]) -> dict[str, list[str]]:
    """The files of arrays among others, by the part that they are: "train" or "test"."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, base = name[: name.rfind("/") + 1], name.rpartition("/")[2]
        is_100 = _CIFAR_100.fullmatch(base) and any(folder + n in names for n in _NAMES_OF_100)
        if is_100 or _CIFAR.fullmatch(base) or _IDX.fullmatch(base):
            part = "test" if re.search(r"(^|-)(test|t10k)", base) else "train"
            found.setdefault(part, []).append(name)
    return found


def choose_arrays(path: Path, names: Collection[str], part: str | None) -> list[str]:
    """The files of arrays for training, or of the other part, "train" or "test", if any.

    Raises:
        InputError: They are of several datasets.
    """
    found = list_arrays(names)
    chosen = found.get(part or min(found, key="train test".index, default=""), [])
    kinds = {re.sub(r"_\d+(?=(\.bin)?$)", "", name) for name in chosen}
    if len(kinds) > 1:
        raise InputError(
            f"{path} holds several datasets ({', '.join(chosen[:3])}, ...): name one, such as "
            f"{path}::{chosen[0]}"
        )
    if part is None and len(found) > 1:
        logger.info("using the images for training; %s::test are the others", path)
    return chosen


def read_arrays(
    path: Path,
    files: Sequence[str],
    names: Collection[str],
    column: str | None,
    read: Callable[[str], bytes],
) -> tuple[list[Item], list[str] | None]:
    """The images in some files, whose handles are pixels, and the names of the classes.

    `files` are those that `choose_arrays` chose of `names`; `column` is "fine" or "coarse" for
    CIFAR-100, whose labels are fine by default; `read` reads a file by name.
    """
    coarse = column is not None and re.fullmatch(r"coarse(_labels?)?", column) is not None
    if column and not coarse and not re.fullmatch(r"(fine_)?labels?|fine", column):
        raise InputError(f"{path} has the labels fine and coarse at most, not {quoted(column)}")
    items: list[Item] = []
    for name in files:
        try:
            if _IDX.fullmatch(name.rpartition("/")[2]):
                pixels = _idx(name, read(name), 3)
                beside = re.sub(r"images([-.])idx3", r"labels\1idx1", name)
                labels = _idx(beside, read(beside), 1) if beside in names else None
            else:
                pixels, labels = _cifar(name, read(name), coarse)
            if labels is not None and len(labels) != len(pixels):
                raise ValueError("the numbers of labels and images differ")
            items += _items(name, pixels, None if labels is None else map(int, labels))
        except InputError:
            raise
        except Exception as error:  # damaged pickles make the unpickler raise nearly anything
            raise InputError(
                f"{path / name} is damaged ({one_line(error)}): download it again"
            ) from error
    return items, _class_names(files[0], names, coarse, read)


def _items(name: str, pixels: NDArray[np.uint8], labels: Iterable[Label] | None) -> list[Item]:
    pairs = zip(pixels, itertools.repeat(None) if labels is None else labels, strict=False)
    return [Item(None, f"{name}:{n:08}", image, label) for n, (image, label) in enumerate(pairs)]


def _idx(name: str, data: bytes, dimensions: int) -> NDArray[np.uint8]:
    """An idx file: two zeros, the type (8: uint8), the number of dimensions, sizes, values."""
    if name.endswith(".gz"):
        with gzip.open(io.BytesIO(data)) as file:
            data = file.read(MOST_BYTES)
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != 4 * (dimensions + 1) + math.prod(
        shape
    ):
        raise ValueError("not the idx file of uint8 values that it should be")
    return np.frombuffer(data, np.uint8, offset=4 * (dimensions + 1)).reshape(shape)


def _cifar(name: str, data: bytes, coarse: bool) -> tuple[NDArray[np.uint8], Any]:
    base = name.rpartition("/")[2]
    labels: Any
    if name.endswith(".bin"):
        before = 2 if _CIFAR_100.fullmatch(base) else 1  # bytes of labels, coarse before fine
        rows = np.frombuffer(data, np.uint8).reshape(-1, before + _PIXELS)
        labels, rows = rows[:, 0 if coarse else before - 1], rows[:, before:]
    else:
        batch = _unpickle(data)
        kinds = ("coarse_labels",) if coarse else ("fine_labels", "labels")
        labels = next((batch[kind] for kind in kinds if kind in batch), None)
        if coarse and labels is None:
            raise InputError(f"{name} has no coarse labels")
        rows = _to_array(batch["data"]).reshape(-1, _PIXELS)
    pixels = rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels


def read_numpy(path: Path) -> list[Item]:
    """The images in a .npy or .npz file, whose handles are pixels.

    Of a .npz file the images are the first array of uint8 with three or four dimensions, and the
    labels the first one of whole numbers with one, if it is as long; else the first one of text, in
    which a name of a class occurs twice.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[n] for n in loaded]
    except Exception as error:  # NumPy and zipfile raise many kinds
        raise InputError(f"{path} is not a whole file of arrays: {one_line(error)}") from error
    found = [array for array in arrays if array.dtype == np.uint8 and array.ndim in (3, 4)]
    pixels: NDArray[Any] = found[0] if found else np.empty(0)
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] not in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if 0 in pixels.shape or pixels.shape[3:] not in ((), (3,)):
        shapes = ", ".join(f"{array.dtype} {array.shape}" for array in arrays[:3]) or "nothing"
        raise InputError(
            f"{path} holds {shapes}: images must be uint8 (N, height, width) or (N, height, width, "
            "1 or 3)"
        )
    rows = [a for a in arrays if a.ndim == 1 and len(a) == len(pixels)]
    whole = [a for a in rows if a.dtype.kind in "iu"]
    # Of text that never occurs twice nobody knows whether it names classes or images.
    text = [a for a in rows if a.dtype.kind == "U" and len(np.unique(a)) < len(a)]
    labels = next(iter([*whole, *text]), None)
    return _items(path.name, pixels, None if labels is None else labels.tolist())


def _class_names(
    file: str, names: Collection[str], coarse: bool, read: Callable[[str], bytes]
) -> list[str] | None:
    kind = "coarse" if coarse else "fine"
    folder = file[: file.rfind("/") + 1]
    for name in ("batches.meta", "meta", "batches.meta.txt", f"{kind}_label_names.txt"):
        if folder + name not in names:
            continue
        data = read(folder + name)
        try:
            if name.endswith(".txt"):
                return data.decode().split()
            about = _unpickle(data)
            found = about.get(f"{kind}_label_names") or about["label_names"]
            return [each.decode() if isinstance(each, bytes) else str(each) for each in found]
        except Exception as error:
            raise InputError(f"{folder + name} is damaged: download it again") from error
    return None


class _State:
    """An object or type of a pickle: what it was made from, and its state."""

    def __init__(self, *made_from: Any) -> None:
        self.made_from = made_from
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _unpickle(data: bytes) -> dict[str, Any]:
    """The dictionary in a pickle, in which arrays are `_State`; nothing that it names is run."""
    known: dict[str, Any] = {"encode": lambda text, _encoding: text.encode("latin-1")}
    known |= dict.fromkeys(("_reconstruct", "_frombuffer", "dtype", "ndarray"), _State)

    class Unpickler(pickle._Unpickler):  # the one in C allocates what a pickle claims to need
        def find_class(self, module: str, name: str) -> Any:
            if module.split(".")[0] not in ("numpy", "_codecs") or name not in known:
                raise pickle.UnpicklingError(f"it asks for {module}.{name}; no code was run")
            return known[name]

    values = Unpickler(io.BytesIO(data), encoding="bytes").load()
    return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in values.items()}


def _to_array(found: _State) -> NDArray[np.uint8]:
    """The values of an array of uint8."""
    if found.state:
        _, shape, kind, is_fortran, values = found.state
    else:  # since protocol 5
        values, kind, shape, order = found.made_from
        is_fortran = order == "F"
    if kind.made_from[0] not in ("u1", b"u1") or not isinstance(values, bytes | bytearray):
        raise ValueError("the values are not uint8")
    return np.frombuffer(values, np.uint8).reshape(shape, order="F" if is_fortran else "C")
