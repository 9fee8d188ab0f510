"""One image at a time on the CPU: this package against pytorch-pretrained-biggan.

BigGAN-deep: the peer as it is, the peer exported to ONNX and run by ONNX Runtime and by OpenVINO,
our plain network and our engines, all of the same random weights and in one process. BigGAN, which
the peer does not have: our engines against our own plain network, which trains and whose layers are
fused already, and against its textbook form (`plain_form.py`): upsample, then convolve. On a CPU
with AMX also our engine in bfloat16, with its PSNR against the float32 image. All take
turns in every round; the figures are medians, and the medians of each round's ratios. Before that
everybody makes one image, and the largest difference is printed. The rate of float32 matrix
products, measured beside, is what an engine's arithmetic is compared with: it is that of the folded
network with direct convolutions, so Winograd's may exceed the rate.

What is not installed is left out, and said so; the peers come with the development tools.

    python benchmarks/sampling.py [--resolutions 128 256 512] [--rounds 9] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_form import plain
from torch import Tensor, nn

import biggan
from biggan.devices import has_amx
from biggan.inference.engine import build_engine
from biggan.inference.folded import FoldedGenerator
from biggan.inference.measurements import matrix_product_rate
from biggan.inference.openvino import version as openvino_version
from biggan.models import Generator, GeneratorConfig
from biggan.nn import StandingBatchNorm2d

RESOLUTIONS, ROUNDS = (128, 256, 512), 9
TRUNCATION, LABEL = 0.4, 207
POWER_ITERATIONS, FOR_STATISTICS = 15, 8
TOLERANCE = 1e-3  # of a range of 2
CPU = torch.device("cpu")
PEER = "pytorch-pretrained-biggan"
PEER_BY_OPENVINO = "  its ONNX by OpenVINO"
PLAIN = "ours, plain network"
TEXTBOOK = "  its textbook form"
IN_BFLOAT16 = "ours, pytorch in bfloat16"
# The peer's own configurations, as its weights are published: (upsample, in, out) in units of ch.
LAYERS = {
    128: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    256: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    512: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1 F1,1 T1,1",
}

Draw = Callable[[], Tensor]
"""Makes one image of the noise and class that all share."""


def peer_config(resolution: int) -> Any:
    """The peer's description of a network.

    Raises:
        ImportError: The peer is not installed.
    """
    from pytorch_pretrained_biggan import BigGANConfig

    layers = [
        [block[0] == "T", *(int(width) for width in block[1:].split(","))]
        for block in LAYERS[resolution].split()
    ]
    return BigGANConfig(output_dim=resolution, layers=layers)


def build_peer(config: Any) -> nn.Module:
    """The peer's network with random weights whose layers neither fade nor explode."""
    from pytorch_pretrained_biggan import BigGAN

    torch.manual_seed(0)
    peer = BigGAN(config).eval()
    for module in peer.modules():
        if hasattr(module, "weight_u"):
            converge(module)
        if hasattr(module, "gamma"):
            nn.init.ones_(module.gamma)  # 0 would leave attention out
    nn.init.ones_(peer.generator.bn.weight)
    nn.init.zeros_(peer.generator.bn.bias)
    norms = [module for module in peer.modules() if hasattr(module, "running_means")]
    z, labels = varied(config.z_dim, config.num_classes)
    weights = nn.functional.one_hot(labels, config.num_classes).float()
    record_statistics(norms, lambda: peer(z, weights, TRUNCATION))
    return peer


@torch.no_grad()
def converge(module: nn.Module) -> None:
    """Bring the vectors of a layer's spectral norm to where training would have brought them."""
    weight = module.weight_orig.flatten(1)
    for _ in range(POWER_ITERATIONS):
        module.weight_v.copy_(nn.functional.normalize(weight.T @ module.weight_u, dim=0))
        module.weight_u.copy_(nn.functional.normalize(weight @ module.weight_v, dim=0))


@torch.no_grad()
def record_statistics(norms: list[nn.Module], draw: Draw) -> None:
    """Give BatchNorms, the peer's or ours, the statistics of some images for every truncation."""

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        for name, buffer in norm.named_buffers(recurse=False):
            buffer.copy_(mean if "mean" in name else var)

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    draw()
    for hook in hooks:
        hook.remove()


def as_ours(peer: nn.Module, folder: Path) -> Generator:
    """The peer's network as this package reads it from the peer's own files."""
    write_peer(peer, folder)
    return biggan.load(folder, offline=True).generator


def write_peer(peer: nn.Module, folder: Path) -> None:
    """Write the two files of which the peer loads a network."""
    torch.save(peer.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(peer.config.to_json_string(), encoding="utf-8")


def build_ours(shape: str | GeneratorConfig) -> Generator:
    """Our network of a shape with random weights and statistics that fit them."""
    generator = biggan.build_generator(shape, seed=0).eval()
    norms = [module for module in generator.modules() if isinstance(module, StandingBatchNorm2d)]
    z, labels = varied(generator.config.z_dim, generator.config.num_classes)
    record_statistics(norms, lambda: generator(z, labels))
    return generator


def varied(z_dim: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Untruncated noise and classes of some images, for statistics."""
    random = torch.Generator().manual_seed(1)
    z = torch.randn(FOR_STATISTICS, z_dim, generator=random)
    return z, torch.randint(num_classes, (FOR_STATISTICS,), generator=random)


def noise(width: int = 128) -> Tensor:
    return TRUNCATION * torch.randn(1, width, generator=torch.Generator().manual_seed(2))


def one_hot() -> Tensor:
    label = torch.zeros(1, 1000)
    label[0, LABEL] = 1
    return label


class AtOneTruncation(nn.Module):
    """The peer for export: the truncation, a number to Python, becomes a constant."""

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = copy.deepcopy(peer)
        for module in self.peer.modules():
            if hasattr(module, "weight_orig"):
                nn.utils.remove_spectral_norm(module)  # the exported weights are final

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.peer(z, label, TRUNCATION)


def export_peer(peer: nn.Module, path: Path) -> None:
    """Write the peer's network as ONNX, for one image.

    Raises:
        ImportError: What exports is not installed.
    """
    import onnxscript  # noqa: F401  # torch needs it to export

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # not of what is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            AtOneTruncation(peer).eval(),
            (noise(), one_hot()),
            str(path),
            input_names=["z", "label"],
            output_names=["image"],
            dynamo=True,
            verbose=False,
        )


def peer_by_onnxruntime(path: Path) -> Draw:
    """See `peer_by_openvino`.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {"z": noise().numpy(), "label": one_hot().numpy()}
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def peer_by_openvino(path: Path) -> Draw:
    """The exported peer in another runtime, with the settings that this package's engine has.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    network = openvino.compile_model(openvino.convert_model(path), "CPU", settings)
    inputs = [noise().numpy(), one_hot().numpy()]
    return lambda: torch.from_numpy(network(inputs)[0].copy())


def deep_contenders(resolution: int) -> tuple[dict[str, Draw], Generator]:
    """All that make the image of one BigGAN-deep, and our network of the same weights."""
    try:
        config = peer_config(resolution)
    except ImportError:
        print(f"{PEER} is not installed: left out, and its exports")
        generator = build_ours(f"biggan-deep-{resolution}")
        return own_contenders(generator), generator
    peer = build_peer(config)
    contenders: dict[str, Draw] = {PEER: lambda: peer(noise(), one_hot(), TRUNCATION)}
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "peer.onnx")
        for name, run in (
            ("  its ONNX by ONNX Runtime", peer_by_onnxruntime),
            (PEER_BY_OPENVINO, peer_by_openvino),
        ):
            try:
                if not exported.exists():
                    export_peer(peer, exported)
                contenders[name] = run(exported)
            except ImportError as error:
                print(f"{name.strip()}: left out, {error}")
        generator = as_ours(peer, Path(folder))
    return contenders | own_contenders(generator), generator


def own_contenders(generator: Generator) -> dict[str, Draw]:
    """Our plain network, and every engine that is installed here."""
    z, labels = noise(generator.config.z_dim), torch.tensor([LABEL])
    contenders: dict[str, Draw] = {PLAIN: lambda: generator(z, labels, TRUNCATION)}
    for name in ("pytorch", *(["openvino"] if openvino_version() else [])):
        engine = build_engine(generator, name)
        if engine.name == name:  # not one that took its place
            contenders[f"ours, engine {name}"] = drawing(engine, z, labels)
    if has_amx():
        engine = build_engine(generator, "pytorch", "bfloat16")
        if engine.precision == "bfloat16":
            contenders[IN_BFLOAT16] = drawing(engine, z, labels)
    return contenders


def textbook_form(generator: Generator) -> dict[str, Draw]:
    """Our network, its layers as a textbook has them."""
    network = plain(copy.deepcopy(generator))
    z, labels = noise(generator.config.z_dim), torch.tensor([LABEL])
    return {TEXTBOOK: lambda: network(z, labels, TRUNCATION)}


def drawing(engine: Callable[..., Tensor], z: Tensor, labels: Tensor) -> Draw:
    return lambda: engine(z, labels, TRUNCATION)


@torch.inference_mode()
def compare(title: str, contenders: dict[str, Draw], generator: Generator, rounds: int) -> None:
    """Check that all make one image, measure, print."""
    images = {name: draw() for name, draw in contenders.items()}  # warms up, too
    expected = next(iter(images.values()))
    low = images.pop(IN_BFLOAT16, None)
    differences = [(image - expected).abs().max().item() for image in images.values()]
    rate = matrix_product_rate(CPU)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, draw in contenders.items():
            times[name].append(seconds(draw))
    rate = max(rate, matrix_product_rate(CPU))
    operations = FoldedGenerator(generator).operations
    peers = [name for name in (PEER, PEER_BY_OPENVINO) if name in times]
    references = peers or [name for name in (PLAIN, TEXTBOOK) if name in times]
    print(
        f"\n{title}: {operations / 1e9:.1f} GFLOP folded, matrix products {rate / 1e9:.0f} GFLOP/s"
    )
    headings = {
        PEER: "peer/it",
        PEER_BY_OPENVINO: "OV/it",
        PLAIN: "plain/it",
        TEXTBOOK: "text/it",
    }
    print(
        f"  {'':28} {'seconds':>8} {'images/s':>8} "
        f"{' '.join(f'{headings[name]:>8}' for name in references)} {'of rate':>8}"
    )
    for name, taken in times.items():
        median = statistics.median(taken)
        against = " ".join(f"{ratio(times[other], taken):7.2f}x" for other in references)
        share = f"{operations / median / rate:8.0%}" if "ours" in name else ""
        print(f"  {name:28} {median:8.3f} {1 / median:8.2f} {against} {share}".rstrip())
    equal = all(difference <= TOLERANCE for difference in differences)  # NaN is not
    print(f"  {'equal' if equal else 'NOT EQUAL'}: largest difference of a pixel", end=" ")
    print(f"{max(differences):.1e} of a range of 2,", end=" ")
    print(f"whose deviation is {expected.std().item():.2f}", flush=True)
    if low is not None:
        change = low - expected
        psnr = 10 * math.log10(4 / change.square().mean().item())
        print(f"  {IN_BFLOAT16}: PSNR {psnr:.1f} dB, {change.abs().max().item():.2f} at most")


def seconds(draw: Draw) -> float:
    start = time.perf_counter()
    draw()
    return time.perf_counter() - start


def ratio(reference: list[float], taken: list[float]) -> float:
    """How many times faster, as the median of the rounds' ratios."""
    return statistics.median(r / t for r, t in zip(reference, taken, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolutions", type=int, nargs="+", choices=RESOLUTIONS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="128 px and 3 rounds unless said")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.quick else ROUNDS)
    resolutions = arguments.resolutions or ([128] if arguments.quick else RESOLUTIONS)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} rounds, batch 1")
    for resolution in resolutions:
        compare(f"biggan-deep-{resolution}", *deep_contenders(resolution), rounds)
    for resolution in resolutions:
        generator = build_ours(f"biggan-{resolution}")
        contenders = own_contenders(generator) | textbook_form(generator)
        compare(f"biggan-{resolution}", contenders, generator, rounds)


if __name__ == "__main__":
    main()
