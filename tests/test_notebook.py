"""The notebook, run in a kernel of its own, beside the formulas of DeepMind's notebook of 2018."""

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import truncnorm

pytest.importorskip("ipykernel")
pytest.importorskip("ipywidgets")
pytest.importorskip("nbclient")

import nbclient
import nbformat

import biggan
from biggan.interpolation import interpolate_labels, interpolate_noise
from biggan.provenance_files import read_provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import run_notebook

NOTEBOOK = Path(__file__).parents[1] / "examples" / "biggan_demo.ipynb"


class Session:
    """A notebook in a running kernel."""

    def __init__(self, client, folder):
        self.folder = folder
        self.notebook = client.nb
        self._client = client

    def run(self, source):
        """Run one more cell; returns what its last line is as plain text."""
        cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(cell)
        self._client.execute_cell(cell, len(self.notebook.cells) - 1)
        self.notebook.cells.pop()
        texts = [o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result"]
        return texts[0] if texts else None

    def array(self, expression):
        """The value of an expression in the kernel, as an array."""
        self.run(f"np.save('value.npy', np.asarray({expression}))")
        return np.load(self.folder / "value.npy")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The notebook after all of its cells were run."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
    )
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
        yield Session(client, folder)


# DeepMind's formulas, in NumPy and SciPy.


def deepminds_noise(num, dim, truncation, seed):
    random_state = np.random.RandomState(seed)
    return truncation * truncnorm.rvs(-2, 2, size=(num, dim), random_state=random_state)


def deepminds_pixels(images):
    """The notebook's conversion of floats (N, H, W, C)."""
    return np.uint8(np.clip(((images + 1) / 2.0) * 256, 0, 255))


def deepminds_path(a, b, num):
    """A path (num, ...) from A to B, both ends included."""
    return np.array([(1 - alpha) * a + alpha * b for alpha in np.linspace(0, 1, num)])


def deepminds_grid(images, columns, pad=1):
    """A grid of images (N, H, W, C) with white lines between them."""
    num, height, width, channels = images.shape
    rows = -(-num // columns)
    grid = np.full((rows * (height + pad), columns * (width + pad), channels), 255, np.uint8)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + pad), (index % columns) * (width + pad)
        grid[y : y + height, x : x + width] = image
    return grid[:-pad, :-pad]


def bits(values):
    """Floats as the network takes them: DeepMind's modules and ours compute in float32."""
    return values.astype(np.float32).view(np.uint32)


def test_the_noise_is_deepminds_to_the_bit(session):
    z = session.array("z")
    expected = deepminds_noise(5, biggan.load().config.z_dim, 0.4, 0)
    np.testing.assert_array_equal(bits(z), bits(expected))


def test_the_pixels_are_deepminds_to_the_bit(session):
    images = session.array("images")
    expected = deepminds_pixels(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(session.array("pixels"), expected)
    assert len(np.unique(expected)) > 100
    floats = "torch.linspace(-1.1, 1.1, 1_000_001).reshape(1, 1, 1, -1)"
    session.run(f"import torch\nfloats = {floats}")
    expected = deepminds_pixels(session.array("floats"))
    np.testing.assert_array_equal(session.array("to_uint8(floats)"), expected)
    assert len(np.unique(expected)) == 256


@pytest.mark.parametrize("steps", range(2, 11))
def test_the_paths_are_deepminds_to_the_bit(steps):
    a, b = (deepminds_noise(2, 128, 0.2, seed) for seed in (3, 4))
    ours = interpolate_noise(a, b, steps)
    expected = deepminds_path(a, b, steps).transpose(1, 0, 2)  # path by path
    np.testing.assert_array_equal(bits(ours), bits(expected))
    one_hot = np.eye(1000)
    weights = interpolate_labels(207, 8, 1000, steps).numpy()
    expected = deepminds_path(one_hot[207], one_hot[8], steps)
    np.testing.assert_array_equal(bits(weights), bits(expected))


def test_the_form_of_samples_shows_what_deepminds_steps_give(session):
    session.run(
        "samples.controls['seed'].value = 31; samples.controls['category'].value = '5) coconut'"
    )
    gan = biggan.load()
    z = deepminds_noise(10, gan.config.z_dim, 0.4, 31)
    images = gan.generate(z, np.full(10, 5), 0.4).numpy()
    expected = deepminds_grid(deepminds_pixels(images.transpose(0, 2, 3, 1)), 5)
    np.testing.assert_array_equal(session.array("samples.picture"), expected)


def test_the_form_of_paths_shows_what_deepminds_steps_give(session):
    before = session.run("paths._figure.value")
    session.run("paths.controls['seed_b'].value = 7; paths.controls['steps'].value = 4")
    gan = biggan.load()
    a, b = (deepminds_noise(2, gan.config.z_dim, 0.2, seed) for seed in (0, 7))
    z = deepminds_path(a, b, 4).transpose(1, 0, 2).reshape(8, -1)
    y = np.tile(deepminds_path(np.eye(36)[0], np.eye(36)[35], 4), (2, 1))
    images = gan.generate(z, y.astype(np.float32), 0.2).numpy()
    expected = deepminds_grid(deepminds_pixels(images.transpose(0, 2, 3, 1)), 4)
    np.testing.assert_array_equal(session.array("paths.picture"), expected)
    assert session.run("paths._figure.value") != before


def test_files_hold_their_recipes(session):
    assert len(read_provenance(session.folder / "samples.png").pictures) == 10
    recipe = read_provenance(session.folder / "paths.gif")
    assert [keyframe.class_name for keyframe in recipe.keyframes] == ["apricot", "strawberry"]


# What is committed.


def test_the_outputs_that_are_kept_are_those_that_the_code_makes(session):
    committed = nbformat.read(NOTEBOOK, as_version=4)
    assert NOTEBOOK.stat().st_size < 600_000
    made = nbformat.from_dict(session.notebook)
    run_notebook.tidy(made)
    again = "run `python scripts/run_notebook.py examples/biggan_demo.ipynb` again"
    for old, new in zip(committed.cells, made.cells, strict=True):
        assert old.source == new.source
        olds, news = old.get("outputs", []), new.get("outputs", [])
        assert [sorted(o.data) for o in olds] == [sorted(o.data) for o in news], again
        for kept, fresh in zip(olds, news, strict=True):
            for kind in kept.data:
                _compare(kind, kept.data[kind], fresh.data[kind], again)
    pictures = [o for c in committed.cells for o in c.get("outputs", []) if "image/png" in o.data]
    assert len(pictures) == 4


def _compare(kind, kept, fresh, again):
    if kind != "image/png":
        assert _without_version(kept) == _without_version(fresh), again
        return
    kept, fresh = (Image.open(io.BytesIO(base64.b64decode(png))) for png in (kept, fresh))
    assert kept.size == fresh.size, again
    distance = np.abs(np.asarray(kept, int) - np.asarray(fresh, int))
    assert distance.max() <= 1, again  # processors round differently
    recipes = (_without_version(png.info.get("biggan", "")) for png in (kept, fresh))
    assert len(set(recipes)) == 1, again


def _without_version(text):
    return re.sub(r"""version(["']?[=:] ?)["'][^"']*["']""", "version", text)


def test_the_script_keeps_small_outputs_alone(tmp_path):
    path = tmp_path / "a.ipynb"
    sources = ["print('x')", "'kept'", "'x' * 160_000", "import ipywidgets\nipywidgets.IntSlider()"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebook = nbformat.read(path, as_version=4)
    run_notebook.run(notebook)
    run_notebook.tidy(notebook)
    kept = [[dict(output.data) for output in cell.outputs] for cell in notebook.cells]
    slider = [{"text/plain": "IntSlider(value=0)"}]
    assert kept == [[], [{"text/plain": "'kept'"}], [], slider]
    assert all(cell.execution_count is None and not cell.metadata for cell in notebook.cells)
