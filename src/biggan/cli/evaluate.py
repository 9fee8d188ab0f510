"""`biggan evaluate`: FID, Inception Score and others, of a model or of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from biggan.atomic_write import make_folder
from biggan.cli.options import (
    TruncationType,
    check_writable,
    choose_device,
    device_option,
    engine_options,
    model_option,
    noise_option,
    offline_option,
    share_processor,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    import torch

    from biggan.engine_names import EngineName, Precision
    from biggan.evaluation import Evaluation, MetricName, Protocol
    from biggan.latents import NoiseKind
    from biggan.metrics.extractor import FeatureExtractor


@click.command
@model_option
@offline_option
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Evaluate these instead of a model's: a folder, an archive, a packed dataset.",
)
@click.option(
    "--data",
    required=True,
    help="What to compare with: a folder, an archive, a packed dataset, or the word digits.",
)
@click.option(
    "-n", "--num", default=50_000, show_default=True, help="Images to make for every truncation."
)
@click.option(
    "--truncations",
    default="none",
    show_default=True,
    metavar="T,T,...",
    help="Truncations to evaluate at, such as 0.2,0.4,1,none; none is the paper's main figure.",
)
@noise_option
@click.option("--seed", default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--metrics",
    default="fid,is,kid,pr",
    show_default=True,
    help="Of fid, is, kid, pr (precision, recall, density, coverage), intra-fid.",
)
@click.option(
    "--extractor",
    default="inception",
    show_default=True,
    metavar="inception|FILE",
    help="Whose features are compared: TF-Inception, fetched once; its weights file as pytorch-fid "
    "publishes it; or a classifier of `biggan classifier`.",
)
@click.option(
    "--resolution", type=click.IntRange(min=1), help="Of --images; found from them if left out."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images at once; what suits, if left out."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("evaluation.json"),
    show_default=True,
    help="All figures with their provenance. A sweep is written beside it as .csv and .png, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@device_option
@engine_options
def command(
    model: str | None,
    offline: bool,
    images: Path | None,
    data: str,
    num: int,
    truncations: str,
    noise: NoiseKind,
    seed: int,
    metrics: str,
    extractor: str,
    resolution: int | None,
    batch_size: int | None,
    out: Path,
    as_json: bool,
    device: str | None,
    engine: EngineName,
    precision: Precision,
) -> None:
    """Measure how good and how varied a model's images are, against data.

    \b
    Examples:
      biggan evaluate --model biggan-deep-128 --data imagenet-128 --num 50000
      biggan classifier digits --out digits-classifier.safetensors
      biggan evaluate --data digits --extractor digits-classifier.safetensors \\
          --num 2048 --truncations 0.2,0.5,1,none
      biggan evaluate --images pictures --data photos.zip --metrics fid

    Goes on where it was when it is killed and started again, and spreads over the processes of
    torchrun. Figures compare only where the extractor, its resize, the number of images and the
    reference are the same: the file says all of them.
    """
    share_processor()
    import torch

    from biggan.distributed import own_device, process_group, raising_together
    from biggan.evaluation import Protocol
    from biggan.evaluation.evaluate import check_truncations
    from biggan.evaluation.scores import check_metrics
    from biggan.latents import check_seed
    from biggan.metrics.choice import open_extractor

    with process_group(torch.device("cpu")):
        with raising_together():
            check_writable(out.parent)
            check_seed(seed)
            wanted = check_metrics(metrics)
            protocol = Protocol(num, seed, noise, batch_size)
            sweep = _read_truncations(truncations)
            check_truncations(sweep, protocol)
            own = own_device(torch.device(choose_device(device)))
            eyes = open_extractor(extractor, device=own, offline=offline)
        if images is None:
            evaluation = _evaluate_model(
                model, offline, own, engine, precision, data, eyes, sweep, wanted, protocol
            )
        else:
            if model is not None:
                raise InputError("give --model or --images, not both")
            evaluation = _evaluate_images(images, data, resolution, eyes, wanted)
    if evaluation is not None:
        _report(evaluation, out, as_json=as_json)


def _read_truncations(text: str) -> tuple[float | None, ...]:
    """Read "0.2,0.4,none"."""
    kind = TruncationType()
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(kind.convert(part, None, None) for part in parts)


def _evaluate_model(
    model: str | None,
    offline: bool,
    device: torch.device,
    engine: EngineName,
    precision: Precision,
    data: str,
    extractor: FeatureExtractor,
    truncations: tuple[float | None, ...],
    metrics: tuple[MetricName, ...],
    protocol: Protocol,
) -> Evaluation | None:
    from biggan.distributed import raising_together
    from biggan.evaluation import evaluate_generator
    from biggan.evaluation.reference import open_reference
    from biggan.gan import load

    with raising_together():
        gan = load(model, device=str(device), offline=offline, engine=engine, precision=precision)
        config = gan.config
        with_classes = "intra-fid" in metrics
        dataset = open_reference(
            data, config.resolution, config.image_channels, with_classes=with_classes
        )
    return evaluate_generator(gan, dataset, extractor, truncations, metrics, protocol)


def _evaluate_images(
    images: Path,
    data: str,
    resolution: int | None,
    extractor: FeatureExtractor,
    metrics: tuple[MetricName, ...],
) -> Evaluation | None:
    from biggan.distributed import raising_together
    from biggan.evaluation import evaluate_images
    from biggan.evaluation.reference import common_resolution, open_reference

    with raising_together():
        size = common_resolution(images) if resolution is None else resolution
        made, dataset = (
            open_reference(path, size, extractor.channels, with_classes="intra-fid" in metrics)
            for path in (images, data)
        )
    return evaluate_images(made, dataset, extractor, metrics)


def _report(evaluation: Evaluation, out: Path, *, as_json: bool) -> None:
    from biggan.atomic_write import write_atomically
    from biggan.evaluation.report import as_csv, as_table, plot_tradeoff

    make_folder(out.parent)
    written = [out]
    write_atomically(out, evaluation.to_json().encode())
    if len(evaluation.rows) > 1:
        written.append(out.with_suffix(".csv"))
        write_atomically(written[-1], as_csv(evaluation).encode())
        try:
            plot_tradeoff(evaluation, out.with_suffix(".png"))
            written.append(out.with_suffix(".png"))
        except InputError as error:
            click.echo(f"no plot: {error}", err=True)
    if as_json:
        click.echo(evaluation.to_json(), nl=False)
        return
    click.echo(as_table(evaluation))
    for path in written:
        click.echo(path)
