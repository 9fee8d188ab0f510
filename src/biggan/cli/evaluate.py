"""`biggan evaluate`: FID, Inception Score and others, of a model or of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from biggan.data.dataset import Resize as DataResize
    from biggan.evaluation.images import ImageSet
    from biggan.latents import NoiseKind
    from biggan.metrics.extractor import FeatureExtractor
    from biggan.metrics.inception import Resize

# The options that --save-statistics allows, and those that --images forbids.
_OF_STATISTICS = {"save_statistics", "data", "model", "resolution", "extractor", "resize"}
_OF_STATISTICS |= {"offline", "device", "data_resize"}
_OF_MODELS = {"num", "truncations", "noise", "seed", "batch_size", "engine", "precision"}


@click.command
@options.model
@options.offline
@click.option(
    "--images",
    type=options.SOURCE,
    metavar="PATH",
    help="Evaluate these images instead of a model's: a folder, an archive, a packed dataset, "
    "samples as .npz or .npy, or `digits`.",
)
@click.option(
    "--data",
    required=True,
    type=options.SOURCE,
    metavar="PATH",
    help="Reference: a folder, an archive, a packed dataset or `digits`; or statistics, from "
    "--save-statistics or pytorch-fid (.npz).",
)
@click.option("-n", "--num", default=50_000, help="Number of generated images per truncation.")
@click.option(
    "--truncations",
    default="none",
    metavar="T,T,...",
    help="Truncations, such as 0.2,0.4,1,none; none is the paper's main figure.",
)
@options.noise
@click.option("--seed", default=0, help="Seed of the noise.")
@click.option(
    "--metrics",
    metavar="M,M,...",
    help="Any of fid, is, kid, pr (precision, recall, density, coverage), accuracy (share of "
    "images that the classifier of --extractor assigns to their class), intra-fid, cas "
    "(classification accuracy score).  [default: fid,is,kid,pr; against statistics fid,is]",
)
@click.option(
    "--extractor",
    default="inception",
    metavar="inception|FILE",
    type=options.SOURCE,
    help="Feature extractor: TF-Inception, downloaded once; its weights file from pytorch-fid; or "
    "a file of `biggan classifier`.",
)
@click.option(
    "--resize",
    type=click.Choice(["tensorflow", "pytorch-fid", "pil-bicubic"]),
    help="Method of resizing to 299 pixels for TF-Inception: as its graph and torch-fidelity, as "
    "pytorch-fid, or as clean-fid.  [default: tensorflow]",
)
@options.label_column
@click.option(
    "--data-resize",
    type=options.RESIZES,
    default="crop",
    help="Make the images of --data square: crop, pad or stretch them.",
)
@click.option(
    "--neighbors",
    type=options.FILE,
    metavar="FILE.png",
    help="Write ten images beside their nearest neighbours in --data, by pixels and by features.",
)
@click.option(
    "--ranking",
    type=options.FILE,
    metavar="FILE.png",
    help="For the metric intra-fid: write a picture of the easiest and the hardest classes.",
)
@click.option(
    "--save-statistics",
    type=options.FILE,
    metavar="FILE",
    help="Only write the statistics of --data, for use as --data. .safetensors records all "
    "settings; .npz is for pytorch-fid.",
)
@click.option(
    "--resolution",
    type=click.IntRange(min=1),
    help="Resolution of --images, or of --data for --save-statistics.  [default: that of the "
    "images]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Images per batch.  [default: chosen for the device]",
)
@click.option(
    "--out",
    type=options.FILE,
    default=Path("evaluation.json"),
    help="File for the figures and all settings. A sweep also writes a .csv and a .png beside it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.device
@options.engine
@options.precision
def command(
    model: str | None,
    offline: bool,
    images: str | None,
    data: str,
    num: int,
    truncations: str,
    noise: NoiseKind,
    seed: int,
    metrics: str | None,
    extractor: str,
    resize: Resize | None,
    label_column: str | None,
    data_resize: DataResize,
    neighbors: Path | None,
    ranking: Path | None,
    save_statistics: Path | None,
    resolution: int | None,
    batch_size: int | None,
    out: Path,
    as_json: bool,
    device: str | None,
    **how: Any,
) -> None:
    """Measure FID, Inception Score and other metrics.

    \b
    Examples:
      biggan evaluate --model biggan-deep-128 --data imagenet-128 --num 50000
      biggan classifier digits --out digits-classifier.safetensors
      biggan evaluate --model digits --data digits \\
          --extractor digits-classifier.safetensors \\
          --num 2048 --truncations 0.2,0.5,1,none --neighbors neighbors.png
      biggan evaluate --images pictures --data photos.zip --metrics fid
      biggan evaluate --data photos.zip --save-statistics photos.safetensors

    After an interruption the same command continues. Runs on several processes with torchrun.
    Figures are comparable only with the same extractor, resize, number of images and reference;
    the file records all of them.
    """
    options.set_environment()
    import torch

    from biggan.data import DIGITS
    from biggan.devices import find_device, keep_freed_memory
    from biggan.distributed import own_device, process_group, raising_together
    from biggan.evaluation import (
        Protocol,
        evaluate,
        evaluate_generator,
        evaluate_images,
        features,
        reference,
        result,
        scores,
    )
    from biggan.evaluation.images import DatasetImages, GeneratedImages
    from biggan.evaluation.pictures import (
        samples_of_generator,
        samples_of_images,
        write_neighbors,
        write_ranking,
    )
    from biggan.latents import check_seed

    keep_freed_memory()
    with process_group(torch.device("cpu")):
        with raising_together():
            _check_options(model, images, data, resolution, neighbors, save_statistics, extractor)
            for file in filter(None, (out, neighbors, ranking, save_statistics)):
                options.check_writable(file.parent)
            check_seed(seed)
            if metrics is not None:
                wanted = scores.check_metrics(metrics)
            else:
                of_statistics = reference.is_statistics(data)
                wanted = scores.OF_STATISTICS if of_statistics else scores.DEFAULT_METRICS
            if ranking is not None and "intra-fid" not in wanted:
                raise InputError("--ranking needs --metrics intra-fid")
            if ranking is not None and ranking.suffix.lower() != ".png":
                raise InputError(f"{ranking} must end in .png")
            protocol = Protocol(num, seed, noise, batch_size)
            sweep = tuple(options.parse_truncations(truncations))
            evaluate.check_truncations(sweep, protocol)
            _check_out(out, neighbors, ranking, is_sweep=len(sweep) > 1)
            own = own_device(find_device(device))
            network = None
            if scores.needs_features(wanted) or neighbors or save_statistics:
                network = features.open_extractor(
                    extractor, resize=resize, device=own, offline=offline
                )
        if save_statistics is not None:
            assert network is not None
            _save_statistics(
                data, model, offline, resolution, data_resize, network, save_statistics
            )
            return
        how_data: Any = {"label_column": label_column, "resize": data_resize}
        classes, flip = scores.needs_classes(wanted), data != DIGITS
        if images is None:
            with raising_together():
                gan = options.load_gan(model, device=str(own), offline=offline, **how)
                size, channels = gan.config.resolution, gan.config.image_channels
                against = reference.open_reference(
                    data, size, channels, with_classes=classes, **how_data
                )
            evaluation = evaluate_generator(
                gan, against, network, sweep, wanted, protocol, flip=flip
            )
            samples = partial(samples_of_generator, gan, protocol, sweep[0])
            shown: Callable[[], ImageSet] = partial(GeneratedImages, gan, protocol, sweep[0])
        else:
            with raising_together():
                channels = 3 if network is None else network.channels
                made, against = reference.open_images(
                    images, data, resolution, channels, with_classes=classes, **how_data
                )
            evaluation = evaluate_images(made, against, network, wanted, flip=flip, device=own)
            samples = partial(samples_of_images, made)
            shown = partial(DatasetImages, made)
        if evaluation is None:
            return
        if not options.given_option(["out"]):
            out = options.unused_name(out, partial(result.is_of_same, evaluation))
        written = result.write_evaluation(evaluation, out)
        if neighbors is not None:
            assert network is not None
            write_neighbors(samples(), against, network, neighbors)
            written.append(neighbors)
        if ranking is not None:
            write_ranking(shown(), evaluation.rows[0], ranking)
            written.append(ranking)
    if as_json:
        click.echo(evaluation.to_json(), nl=False)
        return
    click.echo(result.as_table(evaluation))
    for path in written:
        click.echo(path)
    options.name_next("biggan", "demo", model=model)


def _check_options(
    model: str | None,
    images: str | None,
    data: str,
    resolution: int | None,
    neighbors: Path | None,
    save_statistics: Path | None,
    extractor: str,
) -> None:
    """Refuse options that contradict each other, and sources that are not there."""
    from biggan.data.dataset import DIGITS
    from biggan.data.sources import check_exists
    from biggan.evaluation.reference import check_statistics_name, is_statistics
    from biggan.metrics.statistics import load_statistics

    if images is not None and model is not None:
        raise InputError("give --model or --images, not both")
    if images is not None and (option := options.given_option(_OF_MODELS)):
        raise InputError(f"{option} applies to a model, not to --images: omit it")
    for source in {data, images or data} - {DIGITS}:  # before an extractor is downloaded
        check_exists(Path(source).expanduser())
    if save_statistics is not None:
        check_statistics_name(save_statistics)
        names = {parameter.name or "" for parameter in command.params}
        if option := options.given_option(names - _OF_STATISTICS):
            raise InputError(f"--save-statistics has no use for {option}: omit it")
        if save_statistics.resolve() == Path(extractor).expanduser().resolve():
            raise InputError(f"{save_statistics} is the extractor's own file: choose another name")
        options.check_replaceable(save_statistics, load_statistics)
        if is_statistics(data):
            raise InputError(f"{data} already contains statistics: give images as --data")
        if model is not None and resolution is not None:
            raise InputError("give --model, for its resolution, or --resolution, not both")
    elif images is None and resolution is not None:
        raise InputError("--resolution applies to --images, not to a model: omit it")
    if neighbors is not None:
        if neighbors.suffix.lower() != ".png":
            raise InputError(f"{neighbors} must end in .png")
        if is_statistics(data):
            raise InputError(
                f"--neighbors needs images, but {data} contains statistics: give images as "
                "--data, or omit --neighbors"
            )


def _check_out(out: Path, neighbors: Path | None, ranking: Path | None, *, is_sweep: bool) -> None:
    """Refuse files that would overwrite each other."""
    if out.suffix.lower() != ".json":
        raise InputError(f"{out} must end in .json")
    table, plot = out.with_suffix(".csv"), out.with_suffix(".png")
    files = {"--neighbors": neighbors, "--ranking": ranking}
    pictures = {option: file.resolve() for option, file in files.items() if file is not None}
    for option, file in pictures.items():
        if is_sweep and file == plot.resolve():
            raise InputError(f"{files[option]} is the plot of the sweep: choose another {option}")
    if len(pictures) > len({*pictures.values()}):
        raise InputError(f"{ranking} is also the file of --neighbors: choose another --ranking")
    for beside in (table, plot) if is_sweep else ():
        if beside.exists() and not out.exists():
            raise InputError(f"{beside} exists and does not belong to {out}: choose another --out")


def _save_statistics(
    data: str,
    model: str | None,
    offline: bool,
    resolution: int | None,
    resize: DataResize,
    extractor: FeatureExtractor,
    out: Path,
) -> None:
    from biggan.distributed import raising_together
    from biggan.evaluation.evaluate import check_enough
    from biggan.evaluation.features import extract_features
    from biggan.evaluation.images import DatasetImages
    from biggan.evaluation.reference import common_resolution, open_dataset, save_statistics

    with raising_together():
        channels = extractor.channels
        if model is not None:
            config = options.load_gan(model, device="cpu", offline=offline).config
            resolution, channels = config.resolution, config.image_channels
        size = common_resolution(data) if resolution is None else resolution
        dataset = open_dataset(
            data, size, channels, with_classes=False, may_enlarge=model is None, resize=resize
        )
        check_enough(len(dataset), f"in {dataset.source}")
    features = extract_features(DatasetImages(dataset), extractor)
    with raising_together():
        if features is not None:
            save_statistics(features, dataset, extractor, out)
            click.echo(out)
            how = [
                word
                for name in ("extractor", "resize")
                if options.given_option([name])
                for word in (f"--{name}", click.get_current_context().params[name])
            ]
            options.name_next("biggan", "evaluate", "--data", out, *how, model=model)
