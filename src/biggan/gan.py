"""A generator with what it makes: the object that `biggan.load` returns and users hold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path as FilePath
from threading import Lock
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biggan import pictures
from biggan.classes import resolve_class
from biggan.devices import find_device, naming_out_of_memory
from biggan.engine_names import EngineName, Precision
from biggan.engines import Engine, build_engine
from biggan.errors import InputError
from biggan.interpolation import Path
from biggan.latents import NoiseKind, check_truncation
from biggan.models import Discriminator, Generator, GeneratorConfig
from biggan.nn import OffGrid
from biggan.sampling import as_numbers, generate_batches
from biggan.weights.cache import cache_dir
from biggan.weights.files import Description, with_off_grid
from biggan.weights.load import load_discriminator as read_discriminator
from biggan.weights.load import load_generator


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
        return list(self.draw(self.plan(classes, num, truncation, seed, noise=noise)))

    # Pictures and videos as provenance, which their files carry.
    plan, draw = pictures.plan_pictures, pictures.draw_pictures
    plan_morph, draw_morph = pictures.plan_morph, pictures.draw_morph
    plan_video, draw_video = pictures.plan_video, pictures.draw_video

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
        morph = self.plan_morph(
            class_a, class_b, steps, num, truncation, seed_a, seed_b, path=path, noise=noise
        )
        drawn = self.draw_morph(morph)
        return [list(islice(drawn, steps)) for _ in range(num)]

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

    def __repr__(self) -> str:
        classes = f"{len(self.class_names)} classes" if self.class_names else "unconditional"
        return f"<Gan {self.name}: {self.config.family}, {self.config.resolution} px, {classes}>"
