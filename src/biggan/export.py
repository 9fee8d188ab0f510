"""A generator as a file that other software runs: ONNX, or OpenVINO's own format.

The file holds the folded generator (`inference/folded.py`) for one truncation, or for all of them:

    z              float32 (N, z_dim)
    class_weights  float32 (N, num_classes)   a row for each image: 1 for its class and 0 for the
                                              others, or a mix; not there for unconditional models
    truncation     float32 ()                 only where it is "dynamic": of the BatchNorm
                                              statistics; the noise is to be truncated, too
    images         float32 (N, image_channels, resolution, resolution) in [-1, 1]

Nothing is left on the disk but a file that was run and made the generator's images.

The network of a web page (`biggan.web`) takes the statistics themselves instead of a truncation.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biggan._version import __version__
from biggan.atomic_write import TEMPORARY_SUFFIX, replaced_atomically, temporary_prefix
from biggan.errors import InputError, quoted
from biggan.gan import Gan
from biggan.inference.folded import FoldedGenerator
from biggan.latents import check_truncation
from biggan.models import statistics_grid
from biggan.nn import StandingBatchNorm2d

Format = Literal["onnx", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)

Truncation = float | Literal["dynamic"] | None
"""Whose BatchNorm statistics: a truncation's, as an input decides, or untruncated noise's."""

Batch = int | Literal["dynamic"]
"""Images at once: so many, or any number."""

SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "openvino": ".xml"}

OPSET = 18
"""Of ONNX: what PyTorch's exporter writes without converting, and old runtimes still read."""

MAX_BATCH = 1024
"""Most images at once: the exported network is run on as many before it is kept."""

TOLERANCE = 1e-4
"""Largest difference of a pixel, of a range of 2, from the generator's."""

Storage = Literal["float32", "float16"]
"""The type of the weights in the file; the network computes in float32."""

_STORAGE_TOLERANCE: Mapping[Storage, float] = {"float32": TOLERANCE, "float16": 0.03}
_LARGE = 1024  # values of a tensor that goes beside the graph, and may be stored as float16

_NEEDED: Mapping[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
_EXTRAS: Mapping[Format, str] = {"onnx": "export", "openvino": "openvino"}
_TALKATIVE = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers, about themselves

_Arrays = dict[str, NDArray[np.float32]]
_Run = Callable[[_Arrays], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    format: Format
    inputs: Mapping[str, tuple[int | str, ...]]
    """The shape of each; "N" for any number of images."""
    difference: float
    """Largest difference of a pixel, of a range of 2, from the generator's images."""


@torch.inference_mode(mode=False)  # what is made in that mode cannot be traced
def export_generator(
    gan: Gan,
    path: str | Path,
    form: Format = "onnx",
    *,
    truncation: Truncation = 0.4,
    batch: Batch = "dynamic",
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a generator as a file of another format, and check it by running it on the CPU.

    The file says what it is, as strings: name, class_names (JSON), source, licence, sha256 (of the
    weights file), truncation, and truncation_grid (JSON) where that is "dynamic"; in ONNX as
    metadata, in OpenVINO as the section `biggan` of the rt_info.

    Args:
        gan: What to export.
        path: The file; its folder exists. OpenVINO's ends in `.xml`, and the weights go beside it,
            under the same name with `.bin`.
        form: Of the file.
        truncation: Whose statistics the file holds: in (0, 1]; None for those of untruncated noise;
            "dynamic" for an input that selects among all that were recorded.
        batch: Images at once, or "dynamic".
        force: Replace the file if it exists.
        report: Called before each step, which may take a minute, with what it does.

    Raises:
        InputError: A package is missing, the file exists or cannot be written, the model cannot be
            exported so, or the exported network makes other images.
    """
    path = Path(path)
    check_request(form, path, truncation=truncation, batch=batch, force=force)
    network, about = _Network(gan, truncation), _metadata(gan, truncation)
    library, written = {
        "onnx": ("ONNX", _written_as_onnx),
        "openvino": ("OpenVINO", _written_as_openvino),
    }[form]
    report(f"converting to {library}")
    with _failing_in_one_line(library), written(network, path, batch, about) as run:
        report("comparing its images with PyTorch's")
        difference = _compare(run, gan, truncation, batch, network.table)
    return Exported(path, form, network.shapes(batch), difference)


def check_request(
    form: Format,
    path: Path,
    *,
    truncation: Truncation = 0.4,
    batch: Batch = "dynamic",
    force: bool = False,
) -> None:
    """Refuse what no model can be exported as, before one is loaded; see `export_generator`."""
    for other, suffix in SUFFIXES.items():
        if other != form and path.suffix.lower() == suffix:
            raise InputError(f"{path} has the ending of {other}, but the format is {form}")
    if form == "openvino" and path.suffix.lower() != SUFFIXES[form]:
        raise InputError(f"{path} must end in {SUFFIXES[form]}")
    if truncation != "dynamic":
        check_truncation(truncation)
    if batch != "dynamic" and not (isinstance(batch, int) and 1 <= batch <= MAX_BATCH):
        raise InputError(f"the batch must be 1 to {MAX_BATCH}, or dynamic, not {quoted(batch)}")
    both = (path, path.with_suffix(".bin")) if form == "openvino" else (path,)
    for file in both:
        if file.is_dir():
            raise InputError(f"{file} is a folder: choose another name")
        if file.exists() and not force:
            raise InputError(
                f"{file} exists: choose another name, or replace it with --force (force=True)"
            )
    check_packages(form)


def check_packages(form: Format) -> None:
    """Refuse a format whose packages are not installed."""
    try:
        for package in _NEEDED[form]:
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"export to {form} needs {error.name or package}: pip install 'biggan[{_EXTRAS[form]}]'"
        ) from None


def write_page_network(gan: Gan, path: Path, storage: Storage) -> tuple[Tensor, float]:
    """Write a generator as a web page runs it, one image at a time, and check it on the CPU.

    Its inputs are z, class_weights and statistics (2, T): the mean and the variance of all T
    channels. The weights go beside the file, under the same name with `.data` appended.

    Returns:
        The statistics (S + 1, 2, T): one row per recorded truncation, then those of untruncated
        noise; and the largest difference of a pixel, of a range of 2, from the generator's images.

    Raises:
        InputError: The exported network makes other images.
    """
    import onnx

    network = _Network(gan, "given")
    with _failing_in_one_line("ONNX"):
        program = _onnx_program(network, 1)
        _describe(program.model, {"producer": f"biggan {__version__}"})
        model = program.model_proto
        if storage == "float16":
            _store_in_half_precision(model)
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=4 * _LARGE,  # shapes stay in the graph, where they are needed
        )
        difference = _compare(
            _onnx_runner(path), gan, "given", 1, network.table, _STORAGE_TOLERANCE[storage]
        )
    rows = (*statistics_grid(gan.generator), None)
    return torch.stack([_statistics(network.table, row) for row in rows]), difference


class _Network(nn.Module):
    """What is exported: the folded generator with named inputs; "given" for statistics as an input.

    Raises:
        InputError: The model has no table of statistics for a dynamic truncation, or looks them up
            as no graph does here.
    """

    def __init__(self, gan: Gan, truncation: Truncation | Literal["given"]) -> None:
        super().__init__()
        self.config = gan.config
        self.truncation = truncation
        if truncation == "dynamic":
            _check_table(gan)
        self.folded = FoldedGenerator(gan.generator).cpu().eval()
        self.table = self.folded.modulation.statistics
        if truncation == "given":
            used: StandingBatchNorm2d = _Given(self.table.channels, eps=self.table.eps)
        elif truncation == "dynamic":
            used = _Tabulated(self.table)
        else:
            used = _chosen(self.table, truncation)
        self.folded.modulation.statistics = used.eval()

    def forward(
        self,
        z: Tensor,
        class_weights: Tensor | None = None,
        truncation: Tensor | None = None,
        statistics: Tensor | None = None,
    ) -> Tensor:
        embedding = z[:, :0] if class_weights is None else self.folded.embed(class_weights)
        chosen = truncation if statistics is None else statistics
        return self.folded.synthesize(z, embedding, cast("Any", chosen))

    def shapes(self, batch: Batch) -> dict[str, tuple[int | str, ...]]:
        """The inputs, by name, in order."""
        rows = "N" if batch == "dynamic" else batch
        shapes: dict[str, tuple[int | str, ...]] = {"z": (rows, self.config.z_dim)}
        if self.config.num_classes > 0:
            shapes["class_weights"] = (rows, self.config.num_classes)
        if self.truncation == "dynamic":
            shapes["truncation"] = ()
        if self.truncation == "given":
            shapes["statistics"] = (2, self.table.channels)
        return shapes

    def example(self, batch: Batch) -> dict[str, Tensor]:
        """Inputs with which to trace; any number of images is stood for by 2, as 1 is special."""
        num = 2 if batch == "dynamic" else batch
        shapes = self.shapes(num).items()
        return {name: torch.full(cast("tuple[int, ...]", shape), 0.5) for name, shape in shapes}


class _Tabulated(StandingBatchNorm2d):
    """Statistics at a truncation that is a tensor, linear between rows, as standard operations."""

    truncations: Tensor

    def __init__(self, table: StandingBatchNorm2d) -> None:
        super().__init__(table.channels, grid=table.grid, eps=table.eps)
        self.load_state_dict(table.state_dict())
        self.register_buffer("truncations", torch.tensor(table.grid))

    def statistics(self, truncation: float | Tensor | None) -> tuple[Tensor, Tensor]:
        """See `StandingBatchNorm2d.statistics`, which this equals for float32 truncations ()."""
        assert isinstance(truncation, Tensor)
        grid = self.truncations
        passed = (truncation - grid[:-1]) / (grid[1:] - grid[:-1])
        position = passed.clamp(0, 1).sum()  # in rows; outside the grid its nearest end
        # (S,). On the grid one of them is 1, without rounding, and the others are 0.
        weights = (1 - (position - torch.arange(len(grid))).abs()).clamp(min=0)
        return weights @ self.table_mean, weights @ self.table_var


class _Given(StandingBatchNorm2d):
    """Statistics that are an input (2, C), in the place of a truncation."""

    def statistics(self, truncation: float | Tensor | None) -> tuple[Tensor, Tensor]:
        """The input's rows."""
        assert isinstance(truncation, Tensor)
        return truncation[0], truncation[1]


def _statistics(table: StandingBatchNorm2d, truncation: float | None) -> Tensor:
    """The mean and the variance at a truncation, (2, C)."""
    return torch.stack(table.statistics(truncation))


def _chosen(table: StandingBatchNorm2d, truncation: float | None) -> StandingBatchNorm2d:
    """The statistics of one truncation, without the table."""
    chosen = StandingBatchNorm2d(table.channels, eps=table.eps)
    mean, var = table.statistics(truncation)
    chosen.running_mean.copy_(mean)
    chosen.running_var.copy_(var)
    return chosen


def _check_table(gan: Gan) -> None:
    if not statistics_grid(gan.generator):
        raise InputError(
            f"{gan.name} has one set of statistics for all truncations: use truncation none (None)"
        )
    if gan.config.off_grid == "hub":
        raise InputError(
            f"{gan.name} uses off_grid 'hub' between truncations, which cannot be exported: give "
            "one truncation, or convert it with --off-grid linear (off_grid='linear')"
        )


@contextlib.contextmanager
def _written_as_onnx(
    network: _Network, path: Path, batch: Batch, about: Mapping[str, str]
) -> Iterator[_Run]:
    """The written network, which takes its place when the context ends."""
    with replaced_atomically(path) as temporary:
        program = _onnx_program(network, batch)
        _describe(program.model, about)
        program.save(temporary, external_data=False)
        yield _onnx_runner(temporary)


@contextlib.contextmanager
def _written_as_openvino(
    network: _Network, path: Path, batch: Batch, about: Mapping[str, str]
) -> Iterator[_Run]:
    # The weights come to stand first: where the network is, they are.
    with (
        replaced_atomically(path) as new_path,
        replaced_atomically(path.with_suffix(".bin")) as new_weights,
        tempfile.TemporaryDirectory(
            TEMPORARY_SUFFIX, temporary_prefix(), dir=path.parent
        ) as folder,
    ):
        import openvino  # type: ignore[import-untyped]

        model = _openvino_model(network, batch)
        for name, text in about.items():
            model.set_rt_info(text, ["biggan", name])
        # The format finds the weights by the name of the network's file.
        written = Path(folder, "model.xml")
        openvino.save_model(model, written, compress_to_fp16=False)
        yield _openvino_runner(written)
        written.with_suffix(".bin").replace(new_weights)
        written.replace(new_path)


def _onnx_program(network: _Network, batch: Batch) -> Any:
    example = network.example(batch)
    dynamic = {
        name: {0: torch.export.Dim("N", min=1)} if "N" in shape else {}
        for name, shape in network.shapes(batch).items()
    }
    with torch.no_grad(), _quiet():
        exported = torch.export.export(network, (), example, dynamic_shapes=dynamic)
        exported = exported.run_decompositions(
            {torch.ops.aten.scaled_dot_product_attention.default: _plain_attention}
        )
        return torch.onnx.export(
            exported,
            dynamo=True,
            input_names=list(example),
            output_names=["images"],
            opset_version=OPSET,
            verbose=False,
        )


def _plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` as the folded generator calls it, in three operations.

    ONNX has attention as one operation from opset 23 on only, and of four dimensions.
    """
    assert attn_mask is None
    assert (dropout_p, is_causal, enable_gqa, scale) == (0.0, False, False, 1.0)
    return torch.softmax(query @ key.mT, dim=-1) @ value


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Say in the file what it is, and drop what the exporter says of the program it saw."""
    model.producer_name, model.producer_version = "biggan", __version__
    model.doc_string = None
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()  # with lines of source files, and where these lie
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in itertools.chain(model.graph.inputs, model.graph.initializers.values()):
        value.metadata_props.clear()
    for value in itertools.chain(model.graph.inputs, model.graph.outputs):
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape[0] = "N"


def _store_in_half_precision(model: Any) -> None:
    """Store the large tensors of a network as float16, each with a conversion to float32."""
    import onnx

    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _LARGE:
            name, half = tensor.name, f"{tensor.name}.float16"
            tensor.CopyFrom(onnx.numpy_helper.from_array(_as_half(values), half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _as_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # infinities are found by comparing the images
        return values.astype(np.float16)


def _onnx_runner(path: Path) -> _Run:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["images"], inputs)[0]


def _openvino_model(network: _Network, batch: Batch) -> Any:
    import openvino

    example = network.example(batch)
    with torch.no_grad(), _quiet():
        model = openvino.convert_model(network, example_input=example)
    for name, shape in network.shapes(batch).items():
        port = model.input(name)
        port.get_node().set_partial_shape(
            openvino.PartialShape([-1 if side == "N" else side for side in shape])
        )
        port.get_node().set_friendly_name(name)
        port.get_tensor().set_names({name})  # without the tracer's
    model.outputs[0].get_tensor().set_names({"images"})
    model.validate_nodes_and_infer_types()
    return model


def _openvino_runner(path: Path) -> _Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    network = openvino.compile_model(path, "CPU", settings)
    return lambda inputs: network(inputs)["images"].copy()


def _metadata(gan: Gan, truncation: Truncation) -> dict[str, str]:
    about = gan.description
    metadata = {
        "name": about.name,
        "class_names": json.dumps(about.class_names),
        "source": about.source,
        "licence": about.licence,
        "sha256": gan.sha256,
        "producer": f"biggan {__version__}",
        "truncation": "none" if truncation is None else f"{truncation}",
    }
    if truncation == "dynamic":
        metadata["truncation_grid"] = json.dumps(statistics_grid(gan.generator))
    return metadata


@torch.inference_mode()
def _compare(
    run: _Run,
    gan: Gan,
    truncation: Truncation | Literal["given"],
    batch: Batch,
    table: StandingBatchNorm2d,
    tolerance: float = TOLERANCE,
) -> float:
    """The largest difference of two images by the exported network from the generator's.

    They are of one class and of a mix, at several truncations and batch sizes where those are
    dynamic.

    Raises:
        InputError: It is above the tolerance.
    """
    generator = gan.generator if gan.device.type == "cpu" else copy.deepcopy(gan.generator).cpu()
    config = generator.config
    z = torch.randn(2, config.z_dim, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(2, config.num_classes)
    weights[0, :1] = 1
    weights[1, :1] = weights[1, -1:] = 0.5
    batches = [torch.arange(num) % 2 for num in ((1, 2) if batch == "dynamic" else (batch,))]
    if batch == 1:
        batches.append(torch.ones(1, dtype=torch.int64))
    differences = []
    for t in _truncations(gan, truncation):
        labels = weights if config.num_classes else torch.zeros(2, dtype=torch.int64)
        expected = generator(z, labels, t)
        for rows in batches:
            inputs = {"z": z[rows].numpy()}
            if config.num_classes:
                inputs["class_weights"] = weights[rows].numpy()
            if truncation == "dynamic":
                inputs["truncation"] = np.array(t, np.float32)
            if truncation == "given":
                inputs["statistics"] = _statistics(table, t).numpy()
            images = torch.from_numpy(run(inputs))
            differences.append((images - expected[rows]).abs().max().item())
    worst = max(differences, key=lambda d: (d != d, d))
    if worst <= tolerance:  # false for NaN
        return worst
    raise InputError(
        f"nothing was written: the exported network's images differ from PyTorch's by {worst:.2g}"
    )


def _truncations(gan: Gan, truncation: Truncation | Literal["given"]) -> list[float | None]:
    """At which to compare: the ends of the grid and a place between two rows."""
    if not isinstance(truncation, str):
        return [truncation]
    grid = statistics_grid(gan.generator)
    untruncated: list[float | None] = [None] if truncation == "given" else []
    if not grid:
        return untruncated
    middle = len(grid) // 2
    between = 0.7 * grid[middle - 1] + 0.3 * grid[middle]
    return [grid[0], between, grid[-1], *untruncated]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks about themselves from the user."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _failing_in_one_line(library: str) -> Iterator[None]:
    """Say in one line that a library failed, whatever it raises."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"nothing was written: {library} failed: {reason}") from error
