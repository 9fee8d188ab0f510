"""Memory of a process that samples: this package against pytorch-pretrained-biggan, and over time.

Peaks: one 512 px image by our engines, and the peer at batch 8 and batch 1, each in a process of
its own that starts Python, loads the weights from a file of its kind, makes the images and ends.
Growth: what a process holds after 100 and after 1,000 images of biggan-deep-128, or, with --quick,
of the bundled model. All weights but the bundled ones are random.

    python benchmarks/memory.py [--quick]
"""

# Nothing large is imported here: a process's peak includes that of the one which started it.
from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

RESOLUTION = 512
GROWTH = (100, 1000)  # images
PEER, OURS = "pytorch-pretrained-biggan", "ours"
MEBIBYTE = 2**20


def prepare(folder: Path) -> None:
    """Write the networks that the measurements load."""
    from sampling import build_ours, write_peer

    from biggan.models import set_statistics_grid
    from biggan.weights.files import Description, save_network

    for resolution in (128, RESOLUTION):
        generator = build_ours(f"biggan-deep-{resolution}")
        set_statistics_grid(generator, [round(0.02 * i, 2) for i in range(1, 51)])
        path = folder / f"{resolution}.safetensors"
        save_network(path, generator, Description(name=f"random-{resolution}"))
    if find_spec("pytorch_pretrained_biggan"):
        from pytorch_pretrained_biggan import BigGAN
        from sampling import peer_config

        write_peer(BigGAN(peer_config(RESOLUTION)), folder)


def draw_by_peer(folder: Path, batch: int) -> None:
    import torch
    from pytorch_pretrained_biggan import BigGAN

    peer = BigGAN.from_pretrained(str(folder)).eval()
    labels = torch.eye(1000)[:batch]
    with torch.inference_mode():
        peer(torch.zeros(batch, 128), labels, 0.4)


def draw_by_ours(folder: Path, engine: str) -> None:
    import biggan

    gan = biggan.load(folder / f"{RESOLUTION}.safetensors", engine=engine)
    gan.sample(207, seed=1)


def print_growth(model: str, engine: str) -> None:
    """Print what the process holds, in MiB, after each of the numbers of images."""
    import biggan

    gan = biggan.load(model or None, engine=engine)
    recipes = gan.plan([None], max(GROWTH), 0.4, 0)
    for done, _ in enumerate(gan.draw(recipes), start=1):
        if done in GROWTH:
            print(f"{held() / MEBIBYTE:.0f}")


def held() -> int:
    """Bytes of this process that are in memory now; the peak would hide growth below it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def peak() -> int:
    """Bytes of this process that were in memory at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run(*arguments: object) -> list[float]:
    """The numbers that this script prints in a process of its own, given arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in result.stdout.split()]


def compare(folder: Path, engines: list[str], *, quick: bool) -> None:
    run("--prepare", folder)
    cases = [(OURS, engine) for engine in engines]
    if find_spec("pytorch_pretrained_biggan"):
        cases += [(PEER, 1), (PEER, 8)]
    else:
        print(f"{PEER} is not installed: left out")
    peaks = {case: run("--peak", *case, folder)[0] for case in cases}
    print(f"biggan-deep-{RESOLUTION}, peak of the process in MiB")
    reference = peaks.get((PEER, 8))
    for (who, how), value in peaks.items():
        name = f"{who}, batch {how}" if who == PEER else f"{who}, engine {how}, one image"
        share = f"  {value / reference:.2f} of the peer's at batch 8" if reference else ""
        print(f"  {name:38} {value:7.0f}{share}", flush=True)
    if not Path("/proc/self/statm").exists():
        print("growth: not measured, there is no /proc here")
        return
    model = "" if quick else folder / "128.safetensors"
    print(f"{'the bundled model' if quick else 'biggan-deep-128'}, held by the process in MiB")
    for engine in engines:
        first, last = run("--growth", engine, model)
        print(
            f"  ours, engine {engine:24} {first:7.0f} after {GROWTH[0]} images, {last:.0f} after "
            f"{GROWTH[1]}: {last - first:+.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="growth of the bundled model")
    # What follows is for the script itself.
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--peak", nargs=3, metavar="X", help=argparse.SUPPRESS)
    parser.add_argument("--growth", nargs=2, metavar="X", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare)
    elif arguments.peak:
        who, how, folder = arguments.peak
        if who == PEER:
            draw_by_peer(Path(folder), int(how))
        else:
            draw_by_ours(Path(folder), how)
        print(peak() / MEBIBYTE)
    elif arguments.growth:
        engine, model = arguments.growth
        print_growth(model, engine)
    else:
        engines = ["pytorch", *(["openvino"] if find_spec("openvino") else [])]
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), engines, quick=arguments.quick)


if __name__ == "__main__":
    main()
