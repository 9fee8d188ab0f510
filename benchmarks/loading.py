"""Loading a published model: time and peak memory, against pytorch-pretrained-biggan.

BigGAN-deep at 512 px with random weights, written as Hugging Face publishes it; each program loads
it in a process of its own, in turn. Ours loads it twice: as it is, and converted to our own file.
Peak memory is that of the process less what it has after importing torch and the package. The
peer comes with the development tools (`make test`).

    python benchmarks/loading.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 5
CLOCK = """
import json, pathlib, sys, time
def peak():
    return 1024 * int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
{imports}
import torch
before, start = peak(), time.perf_counter()
model = {load}
print(json.dumps([time.perf_counter() - start, peak() - before]))
"""
PEER = CLOCK.format(
    imports="from pytorch_pretrained_biggan import BigGAN",
    load="BigGAN.from_pretrained(sys.argv[1]).eval()",
)
OURS = CLOCK.format(imports="import biggan, biggan.gan", load="biggan.load(sys.argv[1])")


def write_published(folder: Path) -> None:
    """A folder with pytorch_model.bin and config.json, as the peer's own code saves them."""
    import torch
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig

    blocks = [(16, 16), (16, 8), (8, 8), (8, 4), (4, 2), (2, 1), (1, 1)]
    layers = [
        layer
        for before, after in blocks
        for layer in ([False, before, before], [True, before, after])
    ]
    config = BigGANConfig(output_dim=512, layers=layers)
    torch.save(BigGAN(config).state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(config.to_json_string())


def measure(code: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", code, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, peak = json.loads(output.splitlines()[-1])
    return seconds, peak


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        published, converted = Path(folder) / "published", Path(folder) / "converted.safetensors"
        published.mkdir()
        write_published(published)
        subprocess.run(
            [sys.executable, "-m", "biggan", "convert", published, converted],
            check=True,
            capture_output=True,
        )
        size = (published / "pytorch_model.bin").stat().st_size
        programs = {
            "pytorch-pretrained-biggan": (PEER, published),
            "ours, the same file": (OURS, published),
            "ours, converted": (OURS, converted),
        }
        runs = [
            {name: measure(*program) for name, program in programs.items()} for _ in range(ROUNDS)
        ]
    print(f"a file of {size / 1e6:.0f} MB; medians of {ROUNDS}")
    print(f"{'':26} {'seconds':>8} {'peak MB':>8} {'peak / file':>12} {'time ratio':>11}")
    for name in programs:
        seconds = statistics.median(run[name][0] for run in runs)
        peak = statistics.median(run[name][1] for run in runs)
        ratio = statistics.median(
            run["pytorch-pretrained-biggan"][0] / run[name][0] for run in runs
        )
        print(f"{name:26} {seconds:8.2f} {peak / 1e6:8.0f} {peak / size:12.2f} {ratio:10.2f}x")


if __name__ == "__main__":
    main()
