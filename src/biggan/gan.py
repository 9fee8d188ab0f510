"""A generator with what it makes: the object that `biggan.load` returns and users hold."""

from __future__ import annotations

import html
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path as FilePath
from threading import RLock
from typing import Any

import torch

import biggan.interpolation as interpolation
import biggan.latent_space as latent_space
from biggan.classes import AmbiguousClassError, resolve_class
from biggan.devices import find_device, move
from biggan.errors import InputError
from biggan.inference import EngineName, Precision
from biggan.inference.engine import Engine, build_engine, check_choice
from biggan.latents import NoiseKind
from biggan.models import Discriminator, Generator
from biggan.nn import OffGrid
from biggan.pictures import Morph, Picture, Pictures
from biggan.sampling import draw_pictures, plan_pictures
from biggan.weights import load as weights
from biggan.weights.files import Description, measurements_file


def load(
    model: str | FilePath | None = None,
    *,
    device: str | torch.device | None = None,
    offline: bool = False,
    bn_eps: float | None = None,
    sn_eps: float | None = None,
    off_grid: OffGrid | None = None,
    engine: EngineName = "auto",
    precision: Precision = "float32",
) -> Gan:
    """Load a generator with its class names, in eval mode.

    Args:
        model: A published name such as "biggan-deep-256", whose weights are fetched once; a file
            or folder of any known format (see `biggan.weights.formats`); an address, "hf://owner/repo"
            or "https://..."; None for the bundled model.
        device: "cpu", "cuda", "cuda:1", "mps"; None for the first accelerator, or else the CPU.
        offline: Never touch the network; what is not in the cache is refused.
        bn_eps: Epsilon of BatchNorm, for ajbrock's files, which do not say it; None for 1e-5.
        sn_eps: Epsilon of spectral normalization, likewise; None for 1e-6.
        off_grid: BatchNorm statistics between two recorded truncations: "linear", or "hub" as the
            ports of DeepMind's modules; None for what the file says.
        engine: "pytorch", "openvino", "compile", or "auto" for the fastest that `biggan bench`
            measured on this machine, PyTorch where it measured nothing.
        precision: Of the convolutions: "float32"; faster are "bfloat16" on GPUs and many CPUs,
            and "float16" on GPUs.

    Raises:
        InputError: Nothing loadable is there, the file is damaged, or there is no such device.
    """
    device = find_device(device)
    loaded = weights.load_network(model, offline=offline, bn_eps=bn_eps, sn_eps=sn_eps)
    if off_grid is not None:
        loaded = weights.with_off_grid(loaded, off_grid)
    found = loaded.network, loaded.description, loaded.sha256
    return Gan(*found, engine=engine, precision=precision).to(device)


def load_discriminator(
    path: str | FilePath, *, offline: bool = False, sn_eps: float | None = None
) -> Discriminator:
    """Load a discriminator: `D(images, labels)` gives logits (N, 1), positive for "real".

    It is in eval mode, on the CPU. `path` is a file or folder of any known format that holds one,
    an address, or a published name with a discriminator. For the rest see `load`.
    """
    return weights.load_network(path, "discriminator", offline=offline, sn_eps=sn_eps).network


class Gan:
    """A class-conditional generator, ready to make pictures.

    Attributes:
        generator: The network, a `torch.nn.Module` in eval mode: `generator(z, labels,
            truncation)`. Whoever changes its weights calls `build_engine` before the next picture.
        config: The network's shape.
        description: Name, class names, source, licence, summary of the training.
        name: The model's short name.
        class_names: One name per class; empty for an unconditional model.
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
        check_choice(engine, precision)
        self.generator, self.config = generator, generator.config
        self.description, self.sha256 = description, sha256
        self.name, self.class_names = description.name, description.class_names
        self._engine_choice: tuple[EngineName, Precision] = engine, precision
        self._engine: Engine | None = None
        self._lock = RLock()

    @classmethod
    def from_pretrained(cls, model: str | FilePath, **how: Any) -> Gan:
        """Load a repository of the Hub, "owner/name[@revision]", or a folder; see `load`."""
        from biggan.hub import hub_address

        address = hub_address(model)
        try:
            return load(address, **how)
        except InputError as error:
            if address == model:
                raise
            raise InputError(f"{error}; and there is no folder {model}") from None

    def save_pretrained(self, folder: str | FilePath, **how: Any) -> FilePath:
        """Write a folder to publish; see `biggan.publishing.save_pretrained`."""
        from biggan.publishing import save_pretrained

        return save_pretrained(self, folder, **how)

    def push_to_hub(self, repo: str, **how: Any) -> str:
        """Publish on the Hugging Face Hub; see `biggan.publishing.push_to_hub`."""
        from biggan.publishing import push_to_hub

        return push_to_hub(self, repo, **how)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.generator.parameters()).device

    @property
    def engine(self) -> Engine:
        """What makes the pictures; the first one builds it."""
        with self._lock:
            return self._engine or self.build_engine()

    def build_engine(self) -> Engine:
        """Fold the weights as they are now into what makes the pictures from now on."""
        measurements = None
        with self._lock:
            self._engine = None  # its memory is free for the next one
            with suppress(InputError):  # no home folder: nothing was measured
                measurements = measurements_file()
            self._engine = build_engine(self.generator, *self._engine_choice, measurements)
            return self._engine

    def to(self, device: str | torch.device | None) -> Gan:
        """Move the network to a device, such as "cuda"; returns the same object.

        If it cannot be used (InputError), the network stays where it was.
        """
        if (found := find_device(device)) != self.device:
            self._engine = None
            move(self.generator, found, self.name)
        return self

    # Pictures and videos as provenance, which their files carry, and drawn from it.
    plan, draw = plan_pictures, draw_pictures
    plan_morph, draw_morph = interpolation.plan_morph, interpolation.draw_morph
    plan_video, draw_video = interpolation.plan_video, interpolation.draw_video

    # The generator as an instrument.
    layers, conditions = property(latent_space.layers), property(latent_space.conditions)
    generate, embed, edit = latent_space.generate, latent_space.embed, latent_space.edit
    features, generate_from = latent_space.features, latent_space.generate_from
    differentiable = latent_space.differentiable

    def sample(
        self,
        class_: str | int | Sequence[str | int] | None = None,
        num: int = 1,
        truncation: float | None = 0.4,
        seed: int = 0,
        *,
        noise: NoiseKind = "hub",
    ) -> Pictures:
        """Make pictures of a class, or of one after the other, as a list of PIL images.

        A notebook shows them; `.save(folder)` writes them, `.grid()` puts them into one picture.

        Args:
            class_: A name or an index, or a list of them; None for the classes in turn.
            num: Number of pictures, of each class in a list; the first k do not depend on it.
            truncation: Fidelity against variety: small for typical pictures, 1 for varied ones,
                None for untruncated noise. In (0, 1] unless `noise` says otherwise.
            seed: The same seed gives the same pictures, on every machine up to rounding.
            noise: What `truncation` means: "hub", "paper" or "scale" (see `biggan.latents`).
        """
        planned = self.plan(class_, num, truncation, seed, noise=noise)
        return Pictures(map(Picture.of, self.draw(planned), planned))

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
        path: interpolation.Path = "linear",
        noise: NoiseKind = "hub",
    ) -> Morph:
        """Morph pictures of one class into pictures of another: `num` rows of `steps` pictures.

        A row is a list as of `sample`; `.grid()` puts all into one picture. The first pictures are
        `sample(class_a, num, truncation, seed_a)`, the last those of `class_b` and `seed_b`. The
        noise moves "linear", as in DeepMind's notebook, or "slerp".
        """
        ends, seeds = (class_a, class_b), (seed_a, seed_b)
        morph = self.plan_morph(*ends, steps, num, truncation, *seeds, path=path, noise=noise)
        return Morph(morph, self.draw_morph(morph), interpolation.latents_of_morph(self, morph))

    def class_index(self, class_: str | int) -> int:
        """The index of a class given by name or index, where that is clear."""
        try:
            return resolve_class(class_, self.class_names)
        except InputError as error:
            others = weights.models_with_class(class_)
            if isinstance(error, AmbiguousClassError) or not others or self.name in others:
                raise
            raise InputError(f"{error}; {', '.join(others[:3])} have such a class") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_engine": None, "_lock": None}  # a copy builds its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=RLock())

    def _repr_html_(self) -> str:
        names = [name.split(",")[0] for name in self.class_names[:9]]
        some = "; ".join(names[:8]) + ("; ..." if names[8:] else "")
        call = f"gan.sample({names[0]!r}, num=10)" if names else "gan.sample(num=10)"
        return "".join(f"<p>{html.escape(text)}</p>" for text in (repr(self), some, call))

    def __repr__(self) -> str:
        classes = f"{len(self.class_names)} classes" if self.class_names else "unconditional"
        return f"<Gan {self.name}: {self.config.family}, {self.config.resolution} px, {classes}>"
