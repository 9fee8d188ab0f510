"""A generator with what it makes: the object that `biggan.load` returns and users hold."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby, islice
from pathlib import Path as FilePath
from threading import Lock
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biggan._version import __version__
from biggan.classes import resolve_class
from biggan.devices import find_device, naming_out_of_memory
from biggan.engine_names import EngineName, Precision
from biggan.engines import Engine, build_engine
from biggan.errors import InputError, printable, quoted, real_number, whole_number
from biggan.images import (
    MAX_PICTURES,
    Keyframe,
    MorphRecipe,
    Recipe,
    VideoRecipe,
    to_pil,
    to_uint8,
)
from biggan.interpolation import (
    Loop,
    Path,
    check_path,
    frame_positions,
    interpolate_labels,
    interpolate_noise,
    path_inputs,
)
from biggan.latents import (
    NoiseKind,
    check_seed,
    check_truncation,
    make_noise,
    statistics_truncation,
)
from biggan.models import Discriminator, Generator, GeneratorConfig
from biggan.nn import OffGrid
from biggan.sampling import as_numbers, generate_batches
from biggan.video import there_and_back
from biggan.weights.cache import cache_dir
from biggan.weights.files import Description, with_off_grid
from biggan.weights.load import load_discriminator as read_discriminator
from biggan.weights.load import load_generator

_MAX_NOISE = 10 * MAX_PICTURES  # rows that are drawn for one call


def load(
    model: str | FilePath | None = None,
    *,
    device: str | torch.device = "cpu",
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
    off_grid: OffGrid | None = None,
    engine: EngineName = "auto",
    precision: Precision = "float32",
) -> Gan:
    """Load a generator.

    Args:
        model: What to load; the format is found from the contents:

            - None for the bundled model;
            - a name of DeepMind's published weights, such as "biggan-deep-256": downloaded once,
              converted, and kept in the cache (`$BIGGAN_CACHE`, or ~/.cache/biggan);
            - a file or folder: ours, the folder of a training run, Hugging Face's
              `pytorch_model.bin`, ajbrock's `G_ema.pth`, ivclab's `biggan128-release.pt`, or a TF
              Hub module (its folder or `.tar.gz`);
            - an address: "hf://owner/repo", "https://...", "file://...".
        device: Where to put the network: "cpu", "cuda", "cuda:1", "mps".
        offline: Never touch the network; what is not in the cache is refused.
        bn_eps: Epsilon of BatchNorm, for ajbrock's files alone, which do not say it; None for
            1e-5.
        sn_eps: Epsilon of spectral normalization, likewise; None for 1e-6.
        off_grid: BatchNorm statistics between two recorded truncations: "linear", or "hub" for
            what the ports of DeepMind's modules do there; None for what the file says, which is
            "linear" unless it was converted otherwise. On the grid they are the same.
        engine: What runs the network: "pytorch", "openvino", "compile", or "auto" for the fastest
            that was measured on this machine (`biggan bench`).
        precision: Of its convolutions: "float32", and on GPUs "bfloat16" or "float16", which are
            faster and change pictures slightly.

    Returns:
        The generator with its class names, in eval mode.

    Raises:
        InputError: Nothing loadable is there, the file is damaged, or there is no such device.
    """
    device = find_device(device)
    loaded = load_generator(model, offline=offline, bn_eps=bn_eps, sn_eps=sn_eps)
    if off_grid is not None:
        loaded = with_off_grid(loaded, off_grid)
    gan = Gan(
        loaded.network,
        loaded.description,
        loaded.sha256,
        engine=engine,
        precision=precision,
    )
    return gan.to(device)


def load_discriminator(
    path: str | FilePath, *, offline: bool = False, sn_eps: float | None = None
) -> Discriminator:
    """Load a discriminator: `D(images, labels)` gives logits (N, 1), positive for "real".

    Args:
        path: A weights file of ours, the folder of a training run, ajbrock's `D.pth` or its folder,
            or an address of such a file.
        offline: Never touch the network.
        sn_eps: Epsilon of spectral normalization, for ajbrock's files alone; None for 1e-6.

    Returns:
        The network, in eval mode, on the CPU.

    Raises:
        InputError: Nothing loadable is there, or the file is damaged.
    """
    return read_discriminator(path, offline=offline, sn_eps=sn_eps).network


def measurements_file() -> FilePath:
    """Where the speed of engines on this machine is kept."""
    return cache_dir() / "engines.json"


class Gan:
    """A class-conditional generator, ready to make pictures.

    Args:
        generator: The network, in eval mode.
        description: Its name, class names and origin.
        sha256: Digest of the weights file.
        engine: What runs the network, see `load`.
        precision: Of its convolutions, see `load`.

    Attributes:
        generator: The network, a `torch.nn.Module`: `generator(z, labels, truncation)`.
        description: Name, class names, source, licence, summary of the training.
        sha256: Digest of the weights file.
    """

    def __init__(
        self,
        generator: Generator,
        description: Description,
        sha256: str,
        *,
        engine: EngineName = "auto",
        precision: Precision = "float32",
    ) -> None:
        self.generator = generator
        self.description = description
        self.sha256 = sha256
        self._engine_name: EngineName = engine
        self._precision: Precision = precision
        self._engine: Engine | None = None
        self._engine_of: Hashable = None
        self._building = Lock()

    @property
    def name(self) -> str:
        """The model's short name."""
        return self.description.name

    @property
    def config(self) -> GeneratorConfig:
        """The network's shape."""
        return self.generator.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; empty for an unconditional model."""
        return self.description.class_names

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.generator.parameters()).device

    @property
    def engine(self) -> Engine:
        """What makes the pictures: built when first asked for, and again if the weights changed.

        Raises:
            InputError: The engine is not installed, or cannot run on this device.
        """
        tensors = chain(self.generator.parameters(), self.generator.buffers())
        state = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        with self._building:
            if self._engine is None or state != self._engine_of:
                measurements = None
                if self._engine_name == "auto":
                    with suppress(InputError):  # no home folder: nothing was measured
                        measurements = measurements_file()
                self._engine = None  # its memory is free for the next one
                self._engine = build_engine(
                    self.generator, self._engine_name, self._precision, measurements
                )
                self._engine_of = state
            return self._engine

    def warm_up(self) -> None:
        """Do now what the first picture would have to wait for; returns when it is done."""
        z, labels = torch.zeros(1, self.config.z_dim), torch.zeros(1, dtype=torch.int64)
        self.generate(z, labels)

    def to(self, device: str | torch.device) -> Gan:
        """Move the network to a device, such as "cuda"; returns the same object.

        Raises:
            InputError: There is no such device, it cannot be used, or its memory does not suffice;
                the network stays where it was.
        """
        before, after = self.device, find_device(device)
        tensors = chain(self.generator.parameters(), self.generator.buffers())
        size = sum(tensor.nbytes for tensor in tensors) / 2**30
        try:
            with naming_out_of_memory(
                after,
                f"the weights of {self.name} take {size:.2f} GiB: end other programs on the "
                "device, or choose another",
            ):
                self.generator.to(after)
        except (InputError, RuntimeError) as error:
            self.generator.to(before)
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"the device {str(after)!r} cannot be used: {reason}") from error
        return self

    def sample(
        self,
        class_: str | int | Sequence[str | int] | None = None,
        num: int = 1,
        truncation: float | None = 0.4,
        seed: int = 0,
        *,
        noise: NoiseKind = "hub",
    ) -> list[Image.Image]:
        """Make pictures of a class.

        Args:
            class_: A name or an index, or several of them in a list; None for the classes in turn,
                picture k of class k.
            num: Number of pictures, of each class in a list; the first k do not depend on it.
            truncation: Fidelity against variety: small for typical pictures, 1 for varied ones,
                None for untruncated noise. In (0, 1] unless `noise` says otherwise.
            seed: The same seed gives the same pictures, on every machine up to rounding.
            noise: What `truncation` means: "hub", "paper" or "scale" (see `biggan.latents`).

        Returns:
            `num` pictures, class after class, `resolution` pixels a side.

        Raises:
            InputError: An unknown or ambiguous class, or a value out of range.
        """
        several = isinstance(class_, Sequence) and not isinstance(class_, str)
        classes = cast(Sequence[str | int | None], class_ if several else [class_])
        recipes = self.recipes(classes, num, truncation, seed, noise=noise)
        return list(self.draw(recipes))

    def recipes(
        self,
        classes: Sequence[str | int | None],
        num: int,
        truncation: float | None,
        seed: int,
        *,
        noise: NoiseKind = "hub",
    ) -> list[Recipe]:
        """Plan pictures without making them; see `sample`, which draws these.

        Args:
            classes: For each entry `num` pictures.
            num: Pictures per entry.
            truncation: See `sample`.
            seed: See `sample`.
            noise: See `sample`.
        """
        num, seed = whole_number(num, "the number of pictures"), whole_number(seed, "the seed")
        if not 1 <= num <= MAX_PICTURES:
            raise InputError(
                f"the number of pictures must be at least 1 and at most {MAX_PICTURES}, "
                f"not {quoted(num)}"
            )
        check_truncation(truncation, noise)
        truncation = _plain(truncation)
        check_seed(seed)
        planned = []
        for class_ in classes:
            index = None if class_ is None else self.class_index(class_)
            for k in range(num):
                label = k % len(self.class_names) if index is None and self.class_names else index
                planned.append(
                    Recipe(
                        model=self.name,
                        sha256=self.sha256,
                        class_index=label,
                        class_name=None if label is None else self.class_names[label],
                        truncation=truncation,
                        noise=noise,
                        seed=seed,
                        index=k,
                        version=__version__,
                    )
                )
        return planned

    def draw(self, recipes: Iterable[Recipe]) -> Iterator[Image.Image]:
        """Make the pictures that recipes describe, in order.

        Raises:
            InputError: A recipe of another model, or one that this model cannot follow.
        """
        for (truncation, noise), group in groupby(recipes, lambda r: (r.truncation, r.noise)):
            members = list(group)
            for recipe in members:
                self._check_recipe(recipe)
            z = self._noise(members)
            labels = torch.tensor([recipe.class_index or 0 for recipe in members])
            statistics = statistics_truncation(truncation, noise)
            for batch in generate_batches(self.engine, labels, z, statistics):
                yield from to_pil(to_uint8(batch.images).cpu())

    def interpolate(
        self,
        class_a: str | int | None,
        class_b: str | int | None,
        steps: int = 5,
        num: int = 2,
        truncation: float | None = 0.2,
        seed_a: int = 0,
        seed_b: int = 0,
        *,
        path: Path = "linear",
        noise: NoiseKind = "hub",
    ) -> list[list[Image.Image]]:
        """Morph pictures of one class into pictures of another.

        Args:
            class_a: Name or index of the class at the start; None for an unconditional model.
            class_b: The class at the end.
            steps: Pictures on each path, both ends included; at least 2.
            num: Number of paths.
            truncation: See `sample`; one value for the whole path.
            seed_a: Seed of the noise at the start: the first pictures are `sample(class_a, num,
                truncation, seed_a)`.
            seed_b: Seed of the noise at the end.
            path: "linear", as DeepMind's notebook, or "slerp".
            noise: What `truncation` means.

        Returns:
            `num` rows of `steps` pictures.

        Raises:
            InputError: As `sample`.
        """
        recipe = self.morph_recipe(
            class_a, class_b, steps, num, truncation, seed_a, seed_b, path=path, noise=noise
        )
        pictures = self.draw_morph(recipe)
        return [list(islice(pictures, steps)) for _ in range(num)]

    def morph_recipe(
        self,
        class_a: str | int | None,
        class_b: str | int | None,
        steps: int,
        num: int,
        truncation: float | None,
        seed_a: int,
        seed_b: int,
        *,
        path: Path = "linear",
        noise: NoiseKind = "hub",
    ) -> MorphRecipe:
        """Plan the pictures of `interpolate`, which has the same arguments; see `draw_morph`.

        Raises:
            InputError: An unknown or ambiguous class, or a value of the wrong type.
        """
        a, b = self._keyframes([(class_a, seed_a), (class_b, seed_b)])
        return MorphRecipe(
            model=self.name,
            sha256=self.sha256,
            class_a=a.class_index,
            class_a_name=a.class_name,
            class_b=b.class_index,
            class_b_name=b.class_name,
            steps=whole_number(steps, "the number of steps"),
            num=whole_number(num, "the number of paths"),
            truncation=_plain(truncation),
            noise=noise,
            seed_a=a.seed,
            seed_b=b.seed,
            path=path,
            version=__version__,
        )

    def draw_morph(self, recipe: MorphRecipe) -> Iterator[Image.Image]:
        """Make the pictures that a `morph_recipe` describes: of one path after the other.

        Raises:
            InputError: At once: a recipe of another model, or one that this model cannot follow.
        """
        self._check_recipe(recipe)
        num, steps = recipe.num, recipe.steps
        if num < 1 or num * steps > MAX_PICTURES:
            raise InputError(
                f"the number of paths must be at least 1, and with {quoted(steps)} steps each at "
                f"most {MAX_PICTURES // max(steps, 1)}, not {quoted(num)}"
            )
        ends = [(recipe.class_a, recipe.seed_a), (recipe.class_b, recipe.seed_b)]
        start, end = self._path_noise(recipe, self._keyframes(ends))
        z = interpolate_noise(start, end, steps, cast(Path, recipe.path))  # (num, steps, dim)
        labels = torch.zeros(steps, 1)
        if recipe.class_a is not None and recipe.class_b is not None:
            classes = recipe.class_a, recipe.class_b
            labels = interpolate_labels(*classes, len(self.class_names), steps)
        return self._path_pictures(recipe, [(z.reshape(num * steps, -1), labels.repeat(num, 1))])

    def video_recipe(
        self,
        keyframes: Sequence[tuple[str | int | None, int]],
        frames: int,
        fps: float = 20,
        num: int = 1,
        truncation: float | None = 0.2,
        *,
        loop: Loop = "there-and-back",
        path: Path = "linear",
        noise: NoiseKind = "hub",
    ) -> VideoRecipe:
        """Plan a video that morphs from keyframe to keyframe; `draw_video` makes its frames.

        Args:
            keyframes: At least two classes with the seeds of their noise. A class is a name or an
                index, None for an unconditional model.
            frames: Of the whole video; `biggan.interpolation.frames_of_seconds` counts them.
            fps: Frames a second.
            num: Paths, side by side. Path k leads through picture k of each keyframe's
                `sample(class_, num, truncation, seed)`.
            truncation: See `sample`; one value for the whole video.
            loop: What follows the last keyframe: "there-and-back", "around" (the way to the first
                one) or "none".
            path: "linear" or "slerp".
            noise: What `truncation` means.

        Raises:
            InputError: An unknown or ambiguous class, or a value of the wrong type.
        """
        return VideoRecipe(
            model=self.name,
            sha256=self.sha256,
            keyframes=tuple(self._keyframes(keyframes)),
            frames=whole_number(frames, "the number of frames"),
            fps=real_number(fps, "the frame rate"),
            loop=loop,
            num=whole_number(num, "the number of paths"),
            truncation=_plain(truncation),
            noise=noise,
            path=path,
            version=__version__,
        )

    def draw_video(self, recipe: VideoRecipe) -> Iterator[list[Image.Image]]:
        """Make the frames that a `video_recipe` describes, each of `num` pictures.

        Memory does not grow with their number. What is played there and back is made once: a
        temporary file keeps it for the way back.

        Raises:
            InputError: At once: a recipe of another model, one that this model cannot follow, too
                few frames to hit each keyframe, or too many. Later: the temporary file cannot be
                written.
        """
        self._check_recipe(recipe)
        num, frames = recipe.num, recipe.frames
        if num < 1 or num * frames > MAX_PICTURES:
            raise InputError(
                f"a video of {quoted(num)} paths and {quoted(frames)} frames is of "
                f"{quoted(num * frames)} pictures, and there must be at least 1 and at most "
                f"{MAX_PICTURES}"
            )
        check_path(recipe.path)
        loop = cast(Loop, recipe.loop)  # frame_positions refuses what is none
        positions = frame_positions(len(recipe.keyframes), frames, loop)
        keyframes = self._keyframes([(k.class_index, k.seed) for k in recipe.keyframes])
        inputs = path_inputs(
            self._path_noise(recipe, keyframes),
            torch.tensor([keyframe.class_index or 0 for keyframe in keyframes]),
            positions,
            len(self.class_names),
            cast(Path, recipe.path),
        )
        pictures = self._path_pictures(recipe, inputs)
        one_way = (list(islice(pictures, num)) for _ in positions)
        return there_and_back(one_way) if loop == "there-and-back" else one_way

    def generate(
        self,
        z: Tensor | NDArray[np.floating],
        labels: Tensor | NDArray[np.integer] | NDArray[np.floating] | Sequence[str],
        truncation: float | None = None,
        *,
        batch_size: int | None = None,
    ) -> Tensor:
        """Make images from noise and labels of your own.

        Args:
            z: (N, z_dim), used as given: scale or cut it yourself.
            labels: int64 (N,), or N names of classes; or class weights (N, num_classes), to mix
                classes.
            truncation: Chooses the BatchNorm statistics only, those of hub noise at this value;
                None for those of untruncated noise.
            batch_size: Images at once; None for what suits the device.

        Returns:
            float32 (N, image_channels, resolution, resolution) in [-1, 1], on the CPU.

        Raises:
            InputError: Shapes or types that do not fit, or a truncation outside (0, 1].
        """
        check_truncation(truncation)
        if isinstance(labels, Sequence) and any(isinstance(label, str) for label in labels):
            labels = np.array([self.class_index(label) for label in labels])
        labels = as_numbers(labels, "labels")
        batches = generate_batches(self.engine, labels, z, truncation, batch_size)
        images = [batch.images.cpu() for batch in batches]
        size = self.config.resolution
        return (
            torch.cat(images) if images else torch.empty(0, self.config.image_channels, size, size)
        )

    def class_index(self, class_: str | int) -> int:
        """The index of a class given by name or index.

        Raises:
            InputError: Unknown, ambiguous, or the model has no classes.
        """
        if not self.class_names:
            raise InputError(
                f"{self.name} is unconditional: it has no class {class_!r}; leave it out"
            )
        return resolve_class(class_, self.class_names)

    def _check_recipe(self, recipe: Recipe | MorphRecipe | VideoRecipe) -> None:
        if recipe.sha256 != self.sha256:
            raise InputError(
                f"the picture was made by {printable(recipe.model[:100])} "
                f"(sha256 {printable(recipe.sha256[:12])}...), not by "
                f"{self.name} ({self.sha256[:12]}...); name that model's file"
            )

    def _noise(self, recipes: Sequence[Recipe]) -> NDArray[np.float64]:
        """The noise (N, z_dim) of recipes that share a truncation and its meaning."""
        by_seed: dict[int, list[int]] = {}  # positions among the recipes
        for position, recipe in enumerate(recipes):
            by_seed.setdefault(recipe.seed, []).append(position)
        needed = {s: 1 + max(recipes[p].index for p in own) for s, own in by_seed.items()}
        if sum(needed.values()) > _MAX_NOISE:
            raise InputError(
                f"the pictures' seeds and indices take more than {_MAX_NOISE} rows of noise: ask "
                "for fewer at once"
            )
        first, dim = recipes[0], self.config.z_dim
        kind = cast(NoiseKind, first.noise)  # make_noise refuses what is none
        noise = np.empty((len(recipes), dim))
        for seed, own in by_seed.items():
            rows = make_noise(needed[seed], dim, first.truncation, seed, kind=kind)
            noise[own] = rows[[recipes[position].index for position in own]]
        return noise

    def _keyframes(self, given: Sequence[tuple[str | int | None, int]]) -> list[Keyframe]:
        """Classes and seeds as recipes hold them."""
        for keyframe in given:
            if not isinstance(keyframe, tuple | list) or len(keyframe) != 2:
                raise InputError(
                    f"a keyframe is a class and a seed, as in ('hen', 1), not {quoted(keyframe)}"
                )
        if self.class_names and any(class_ is None for class_, _ in given):
            raise InputError(
                "name a class to start from and a class to end at; of a video, one for each "
                "keyframe"
            )
        keyframes = []
        for class_, seed in given:
            index = None if class_ is None else self.class_index(class_)
            name = None if index is None else self.class_names[index]
            keyframes.append(Keyframe(index, name, whole_number(seed, "the seed")))
        return keyframes

    def _path_noise(
        self, recipe: MorphRecipe | VideoRecipe, keyframes: Sequence[Keyframe]
    ) -> NDArray[np.float64]:
        """Of each keyframe and path: (keyframes, num, z_dim)."""
        kind = cast(NoiseKind, recipe.noise)  # make_noise refuses what is none
        shape = recipe.num, self.config.z_dim
        return np.stack(
            [make_noise(*shape, recipe.truncation, k.seed, kind=kind) for k in keyframes]
        )

    def _path_pictures(
        self,
        recipe: MorphRecipe | VideoRecipe,
        inputs: Iterable[tuple[NDArray[np.float64], Tensor]],
    ) -> Iterator[Image.Image]:
        """Make pictures from noise (n, z_dim) and class weights (n, num_classes)."""
        statistics = statistics_truncation(recipe.truncation, cast(NoiseKind, recipe.noise))
        for z, labels in inputs:
            for batch in generate_batches(self.engine, labels, z, statistics):
                yield from to_pil(to_uint8(batch.images).cpu())

    def __repr__(self) -> str:
        classes = f"{len(self.class_names)} classes" if self.class_names else "unconditional"
        return f"<Gan {self.name}: {self.config.family}, {self.config.resolution} px, {classes}>"


def _plain(truncation: float | None) -> float | None:
    """The same, of Python's own type."""
    return None if truncation is None else real_number(truncation, "truncation")
