"""One image at a time on the CPU: this package against pytorch-pretrained-biggan.

BigGAN-deep: the peer as it is, the peer exported to ONNX and run by ONNX Runtime and by OpenVINO,
our plain network and our engines, all of the same random weights. BigGAN, which the peer does not
have: our engines against our own plain network, which trains and whose layers are fused already,
and against its textbook form (`plain_form.py`): upsample, then convolve. Where the CPU has
bfloat16, also our engine in it, with its PSNR against the float32 image.

Each has a process of its own, as its users run it: ours with the environment of `biggan sample`,
the peers as they come. All take turns in every round, of several images in a row; the figures are
medians of the turns' medians, and the medians of each round's ratios. Before that everybody makes
one image, and the largest difference is printed. The rate of float32 matrix products, measured
beside, is what an engine's arithmetic is compared with: it is that of the folded network with
direct convolutions, so Winograd's may exceed the rate.

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
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from plain_form import plain
from torch import Tensor, nn
from turns import Functions, Plan, ratio, running, take_turns

import biggan
from biggan.cli.options import set_environment
from biggan.devices import has_bfloat16, keep_freed_memory
from biggan.inference import EngineName, Precision
from biggan.inference.folded import FoldedGenerator
from biggan.inference.measurements import matrix_product_rate
from biggan.inference.openvino import version as openvino_version
from biggan.models import Generator, GeneratorConfig
from biggan.nn import StandingBatchNorm2d
from biggan.weights.files import Description, save_network

RESOLUTIONS, ROUNDS = (128, 256, 512), 9
IMAGES = 4  # of a turn
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
def record_statistics(norms: list[nn.Module], draw: Callable[[], Tensor]) -> None:
    """Give BatchNorms, the peer's or ours, the statistics of some images for every truncation."""

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        for name, buffer in norm.named_buffers(recurse=False):
            buffer.copy_(mean if "mean" in name else var)

    hooks = [norm.register_forward_pre_hook(record) for norm in norms]
    draw()
    for hook in hooks:
        hook.remove()


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


def peers_image(folder: Path) -> Functions:
    peer, z, label = load_peer(folder), noise(), one_hot()
    return {"image": torch.inference_mode()(lambda: peer(z, label, TRUNCATION))}


def load_peer(folder: Path) -> nn.Module:
    from pytorch_pretrained_biggan import BigGAN

    return BigGAN.from_pretrained(str(folder)).eval()


def image_by_onnxruntime(exported: Path) -> Functions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    inputs = {"z": noise().numpy(), "label": one_hot().numpy()}
    return {"image": lambda: torch.from_numpy(session.run(None, inputs)[0])}


def image_by_openvino(exported: Path) -> Functions:
    """The exported peer in another runtime, with the settings that this package's engine has."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    network = openvino.compile_model(openvino.convert_model(exported), "CPU", settings)
    inputs = [noise().numpy(), one_hot().numpy()]
    return {"image": lambda: torch.from_numpy(network(inputs)[0].copy())}


def image_by_network(weights: Path, form: Callable[[Generator], nn.Module]) -> Functions:
    generator = biggan.load(weights, device="cpu", offline=True).generator
    z, labels, network = noise(generator.config.z_dim), torch.tensor([LABEL]), form(generator)
    return {"image": torch.inference_mode()(lambda: network(z, labels, TRUNCATION))}


def image_by_engine(weights: Path, name: EngineName, precision: Precision) -> Functions:
    gan = biggan.load(weights, device="cpu", offline=True, engine=name, precision=precision)
    engine = gan.engine
    if (engine.name, engine.precision) != (name, precision):
        raise ImportError(f"{engine.name} in {engine.precision} took its place")
    keep_freed_memory()  # as `biggan sample` does
    z, labels = noise(engine.config.z_dim), torch.tensor([LABEL])
    return {"image": lambda: engine(z, labels, TRUNCATION)}


def write_deep(resolution: int, folder: Path) -> tuple[Path, nn.Module | None]:
    """Write the weights that all load: those of the peer, or ours where it is not installed.

    Returns:
        What `biggan.load` takes, and the peer.
    """
    try:
        peer = build_peer(peer_config(resolution))
    except ImportError:
        print(f"{PEER} is not installed: left out, and its exports")
        return write_ours(f"biggan-deep-{resolution}", folder), None
    write_peer(peer, folder)
    return folder, peer


def write_ours(shape: str, folder: Path) -> Path:
    weights = folder / "ours.safetensors"
    save_network(weights, build_ours(shape), Description(name="random"))
    return weights


def peer_plans(peer: nn.Module, folder: Path) -> dict[str, Plan]:
    """The peer as its files in the folder have it, and its exports."""
    plans = {PEER: Plan(partial(peers_image, folder))}
    exported = folder / "peer.onnx"
    try:
        export_peer(peer, exported)
    except ImportError as error:
        print(f"its ONNX: left out, {error}")
        return plans
    plans["  its ONNX by ONNX Runtime"] = Plan(partial(image_by_onnxruntime, exported))
    plans[PEER_BY_OPENVINO] = Plan(partial(image_by_openvino, exported))
    return plans


def own_plans(weights: Path) -> dict[str, Plan]:
    """Our plain network, and every engine that is installed here."""
    builds = {PLAIN: partial(image_by_network, weights, nn.Module.eval)}
    for name in ("pytorch", *(["openvino"] if openvino_version() else [])):
        builds[f"ours, engine {name}"] = partial(image_by_engine, weights, name, "float32")
    if has_bfloat16():
        builds[IN_BFLOAT16] = partial(image_by_engine, weights, "pytorch", "bfloat16")
    return {name: Plan(build, set_environment) for name, build in builds.items()}


def compare(title: str, plans: dict[str, Plan], weights: Path, rounds: int) -> None:
    """Check that all make one image, measure, print."""
    operations = FoldedGenerator(
        biggan.load(weights, device="cpu", offline=True).generator
    ).operations
    with running(plans) as contenders:
        images = {name: one.result("image") for name, one in contenders.items()}  # warms up, too
        rate = matrix_product_rate(CPU)
        times = take_turns(contenders, "image", rounds, IMAGES)
        rate = max(rate, matrix_product_rate(CPU))
    print(
        f"\n{title}: {operations / 1e9:.1f} GFLOP folded, matrix products {rate / 1e9:.0f} GFLOP/s"
    )
    report_times(times, operations / rate)
    report_images(images)


def report_times(times: dict[str, list[float]], least: float) -> None:
    """Print a table; `least` is the time of an image at the rate of matrix products."""
    peers = [name for name in (PEER, PEER_BY_OPENVINO) if name in times]
    references = peers or [name for name in (PLAIN, TEXTBOOK) if name in times]
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
        share = f"{least / median:8.0%}" if "ours" in name else ""
        print(f"  {name:28} {median:8.3f} {1 / median:8.2f} {against} {share}".rstrip())


def report_images(images: dict[str, Tensor]) -> None:
    """Print how far they are from the first one."""
    expected = next(iter(images.values()))
    low = images.pop(IN_BFLOAT16, None)
    differences = [(image - expected).abs().max().item() for image in images.values()]
    equal = all(difference <= TOLERANCE for difference in differences)  # NaN is not
    print(f"  {'equal' if equal else 'NOT EQUAL'}: largest difference of a pixel", end=" ")
    print(f"{max(differences):.1e} of a range of 2,", end=" ")
    print(f"whose deviation is {expected.std().item():.2f}", flush=True)
    if low is not None:
        change = low - expected
        psnr = 10 * math.log10(4 / change.square().mean().item())
        print(f"  {IN_BFLOAT16}: PSNR {psnr:.1f} dB, {change.abs().max().item():.2f} at most")


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
        with tempfile.TemporaryDirectory() as name:
            weights, peer = write_deep(resolution, Path(name))
            plans = ({} if peer is None else peer_plans(peer, weights)) | own_plans(weights)
            del peer
            compare(f"biggan-deep-{resolution}", plans, weights, rounds)
    for resolution in resolutions:
        with tempfile.TemporaryDirectory() as name:
            weights = write_ours(f"biggan-{resolution}", Path(name))
            textbook = Plan(partial(image_by_network, weights, plain), set_environment)
            compare(
                f"biggan-{resolution}", own_plans(weights) | {TEXTBOOK: textbook}, weights, rounds
            )


if __name__ == "__main__":
    main()
