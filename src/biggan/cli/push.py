"""`biggan push`: publish a model on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from biggan.cli import options


@click.command
@click.argument("model", metavar="MODEL")
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Create a repository that only its owner can see.")
@click.option(
    "--discriminator/--no-discriminator",
    default=True,
    help="Whether the discriminator of a run folder is published, too.",
)
@click.option(
    "--folder", type=options.FOLDER, help="Only write what would be published to this folder."
)
@options.device
def command(
    model: str,
    repo: str,
    private: bool,
    discriminator: bool,
    folder: Path | None,
    device: str | None,
) -> None:
    """Publish MODEL in the repository OWNER/NAME of the Hugging Face Hub.

    MODEL is the folder of a training run, or a weights file. The repository gets model.safetensors,
    config.json, a model card (README.md; one that is there stays), samples.png, and the recipe and
    the discriminator of a run. Log in with `hf auth login`, or set HF_TOKEN.

    \b
    Examples:
      biggan push runs/pets me/pets-biggan
      biggan push runs/pets me/pets-biggan --folder preview
      biggan sample --model hf://me/pets-biggan --class cat
    """
    from biggan.hub import check_push, check_repository, push_folder

    if folder is not None:
        check_repository(repo)
        options.check_writable(folder)
    else:
        check_push(repo)
    from biggan.gan import Gan
    from biggan.publishing import save_network_pretrained, save_pretrained
    from biggan.weights.files import RUN_DISCRIMINATOR
    from biggan.weights.load import load_network

    loaded = load_network(model, None)
    judge = None
    if discriminator and loaded.kind == "generator" and (Path(model) / RUN_DISCRIMINATOR).exists():
        judge = load_network(model, "discriminator").network
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) if folder is None else folder
        if loaded.kind == "discriminator":
            save_network_pretrained(loaded.network, loaded.description, out, repo)
        else:
            gan = Gan(loaded.network, loaded.description, loaded.sha256)
            save_pretrained(gan.to(device), out, discriminator=judge, repo=repo)
        if folder is not None:
            click.echo(folder)
            options.name_next("biggan", "push", model, repo)
            return
        click.echo(push_folder(out, repo, private=private))
        if loaded.kind == "generator":
            options.name_next("biggan", "sample", model=f"hf://{repo}")
