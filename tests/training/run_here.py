"""A training run as a program, for tests that start it with torchrun and kill it.

Usage: python run_here.py FOLDER RUN_DIR TOTAL_STEPS
"""

import logging
import signal
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))

from biggan.data import load_dataset
from biggan.distributed import process_group
from biggan.errors import InputError
from biggan.training.config import TrainConfig
from biggan.training.loop import train
from tiny import TINY_RECIPE


def main(folder, run_dir, total_steps):
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    values = {**TINY_RECIPE, "total_steps": int(total_steps), "checkpoint_every": 2}
    config = TrainConfig.from_dict(values).fitted(2)
    try:
        with process_group(torch.device("cpu")) as device:
            dataset = load_dataset(folder, 32, 3, workers=1)
            train(config, dataset, Path(run_dir), device=device, should_stop=lambda: bool(asked))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    main(*sys.argv[1:])
