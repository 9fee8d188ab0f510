"""The forms in Jupyter: DeepMind's Colab notebook of 2018, with the page's words and pictures.

    from biggan.demo.notebook import explore

    form = explore(gan)
    form                    # as the last line of a cell: controls, and a picture that follows them
    form.save("ten.png")    # with its provenance inside

Needs ipywidgets: `pip install 'biggan[notebook]'`. No Gradio here.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from biggan.classes import class_choices
from biggan.demo import drawing, forms
from biggan.demo.renderer import AbandonedError, Job
from biggan.demo.words import column_heads, describe
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import make_grid, save_png, to_png
from biggan.provenance import LatentGridProvenance, MorphProvenance, VideoProvenance, file_stem
from biggan.video import check_video

try:
    import ipywidgets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the forms need ipywidgets: pip install 'biggan[notebook]'", name=error.name
    ) from None

_VISIBLE = 128  # pixels a side to which small pictures are enlarged, at most
_FEW = 20  # up to this many classes are a menu, more are searched by typing
_MAX_VIDEO = 32 * 2**20  # bytes of a video that a notebook should hold
_REDRAW_INTERVAL = 0.5  # seconds
_HEADS = (
    "display:grid; grid-auto-flow:column; grid-auto-columns:minmax(0,1fr); text-align:center; "
    "font-variant-numeric:tabular-nums; white-space:nowrap;"
)


def explore(gan: Gan) -> NotebookForm:
    """Samples of one category, at most five a row."""
    return NotebookForm(gan, forms.EXPLORE)


def interpolate(gan: Gan) -> NotebookForm:
    """Paths from one category and seed to another, one a row, and a looping video of them."""
    return NotebookForm(gan, forms.INTERPOLATE)


def sweep(gan: Gan) -> NotebookForm:
    """The same samples over falling truncations, as the paper's Figure 2."""
    return NotebookForm(gan, forms.SWEEP)


def directions(gan: Gan) -> NotebookForm:
    """A sample before and after its noise is moved along the model's strongest directions."""
    return NotebookForm(gan, forms.DIRECTIONS)


class NotebookForm:
    """A form, its picture, which follows the controls, and its video, if the form has one.

    Where widgets cannot be shown, as in a notebook on a web site, the picture is. The video is an
    MP4 where one can be made, else a WebP; it is hidden when one of its settings is moved.

    To assign `controls["seed"].value` is what moving the slider does; the keys are the API's. An
    unconditional model has no controls for categories.
    """

    def __init__(self, gan: Gan, form: forms.Form) -> None:
        self.controls: dict[str, Any] = {}
        self._gan = gan
        self._form = form
        self._threads = ThreadPoolExecutor(1, "notebook-form")
        self._job = Job()
        self._made: tuple[forms.SheetProvenance, Image.Image] | Exception | None = None
        self._message, self._figure, self._video = (ipywidgets.HTML() for _ in range(3))
        self._progress = ipywidgets.IntProgress(description=forms.VIDEO.title)
        self._progress.layout.display = "none"
        self._fields: list[Any] = []
        for control in form.all_controls:
            if field := build_field(control, gan):
                self.controls[control.key] = field[0]
                self._fields.append(field[1])
                if control in form.controls:
                    field[0].observe(self._moved, "value")
        if form.video:
            self._add_button("Make the video", self._film_clicked, button_style="primary")
        self._add_button("Save PNG", self._save_clicked, icon="download")
        self._moved()

    @property
    def picture(self) -> Image.Image:
        """The picture of the settings as they are; waits until it is made.

        Raises:
            InputError: A control has a value that the form does not take.
        """
        return self._finished()[1]

    @property
    def provenance(self) -> forms.SheetProvenance:
        """The provenance of `picture`; raises as it does."""
        return self._finished()[0]

    def save(self, path: str | Path) -> Path:
        """Write the picture as a PNG with its provenance inside; returns the path.

        Raises:
            InputError: As `picture`, or the file cannot be written; its folder must exist.
        """
        sheet, picture = self._finished()
        save_png(picture, Path(path), sheet)
        return Path(path)

    def save_video(self, path: str | Path) -> Path:
        """Write the video of the settings as they are as .gif, .mp4 or .webp; returns the path.

        Raises:
            InputError: A control has a value that the form does not take, or the file cannot be
                written.
        """
        video = self._plan_video()
        check_video(Path(path), video.fps)
        self._write_video(video, Path(path), Job())
        return Path(path)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Jupyter shows: the widgets, or the picture alone where there are none."""
        controls = ipywidgets.VBox(self._fields, layout={"max_width": "100%"})
        # Beside the controls if a row of five pictures has room there, else below them.
        width = 5 * self._gan.config.resolution * _enlargement(self._gan)
        room = {"flex": f"1 1 {width}px", "min_width": "0", "max_width": "100%"}
        videos = [self._progress, self._video] if self._form.video else []
        outputs = ipywidgets.VBox([self._message, self._figure, *videos], layout=room)
        layout = {"flex_flow": "row wrap"}
        data = ipywidgets.HBox([controls, outputs], layout=layout)._repr_mimebundle_()
        try:
            sheet, picture = self._finished()
        except InputError as error:
            return {**data, "text/plain": str(error)}, {}
        data["image/png"] = base64.b64encode(to_png(picture, sheet)).decode()
        data["text/plain"] = describe(sheet)
        return data, {"image/png": {"width": picture.width * _enlargement(self._gan)}}

    def _add_button(self, name: str, clicked: Callable[[Any], None], **looks: Any) -> None:
        button = ipywidgets.Button(description=name, **looks)
        button.on_click(clicked)
        self._fields.append(button)

    def _start(self, make: Callable[[Job], None]) -> None:
        """Do in the background what was asked for last, and abandon what was asked for before.

        A notebook's kernel handles one message after the other: if the handlers of sliders drew,
        each move would wait for the pictures of all moves before it.
        """
        self._job.abandoned.set()
        self._job = Job()
        self._job.future = self._threads.submit(self._run, make, self._job)

    def _run(self, make: Callable[[Job], None], job: Job) -> None:
        try:
            job.check()
            make(job)
        except AbandonedError:
            pass
        except Exception as error:
            self._made = self._made or error
            self._alert(str(error) if isinstance(error, InputError) else f"failed: {error!r}")

    def _finished(self) -> tuple[forms.SheetProvenance, Image.Image]:
        self._job.future.result()
        if isinstance(self._made, Exception):
            raise self._made
        assert self._made is not None, "the newest job is never abandoned"
        return self._made

    def _alert(self, text: str) -> None:
        style = "color:var(--jp-error-color1,#c62828)"
        self._message.value = f'<p role="alert" style="{style}">{html.escape(text)}</p>'

    def _values(self) -> dict[str, Any]:
        return {key: widget.value for key, widget in self.controls.items()}

    def _moved(self, _: Any = None) -> None:
        self._video.value = ""
        self._start(partial(self._draw, self._values()))

    def _draw(self, values: dict[str, Any], job: Job) -> None:
        self._made = None
        sheet = self._form.plan(self._gan, **values)
        last_shown = time.monotonic()
        for picture in drawing.draw_sheet(self._gan, sheet):
            job.add(picture)
            now, is_whole = time.monotonic(), len(job.parts) == drawing.count(sheet)
            if not is_whole and now - last_shown > _REDRAW_INTERVAL:
                last_shown, coarse = now, drawing.unfinished(job.parts, sheet)
                self._figure.value = figure(self._gan, sheet, coarse)
        grid = make_grid(job.parts, drawing.columns(sheet))
        self._figure.value = figure(self._gan, sheet, grid)
        self._made = sheet, grid
        self._message.value = ""

    def _save_clicked(self, _: Any) -> None:
        try:
            path = self.save(f"{file_stem(self.provenance)}.png")
        except InputError as error:
            self._alert(str(error))
        else:
            self._message.value = f'<p role="status">Saved as {html.escape(str(path))}</p>'

    def _plan_video(self) -> VideoProvenance:
        if self._form.video is None:
            raise InputError(f"the form {self._form.title!r} has no video")
        video: VideoProvenance = self._form.video.plan(self._gan, **self._values())
        return video

    def _film_clicked(self, _: Any) -> None:
        try:
            self._start(partial(self._film, self._plan_video()))
        except InputError as error:
            self._alert(str(error))

    def _film(self, video: VideoProvenance, job: Job) -> None:
        with TemporaryDirectory(prefix="biggan-") as folder:
            file = Path(folder, file_stem(video) + drawing.video_endings()[-1])
            self._write_video(video, file, job)
            job.check()
            contents = file.read_bytes()
        if len(contents) > _MAX_VIDEO:
            raise InputError(
                f"the video is too large for a notebook ({len(contents) / 2**20:.0f} MB): write it "
                f'to a file, save_video("{file.name}")'
            )
        about = "A looping video of the same paths, there and back"
        style = 'style="max-width:100%; height:auto;"'
        if file.suffix == ".mp4":
            attributes = f'autoplay loop muted playsinline controls aria-label="{about}" {style}'
            shown = f'<video {attributes} src="{_data(contents, "video/mp4")}"></video>'
        else:
            shown = f'<img alt="{about}" {style} src="{_data(contents, "image/webp")}">'
        self._video.value = shown
        self._message.value = ""

    def _write_video(self, video: VideoProvenance, file: Path, job: Job) -> None:
        """Write a video, with a progress bar until it is done."""

        def report(number: int) -> None:
            job.check()
            self._progress.max, self._progress.value = video.frames, number
            self._progress.layout.display = ""

        try:
            drawing.draw_video(self._gan, video, [file], report)
        finally:
            self._progress.layout.display = "none"


def build_field(control: forms.Control, gan: Gan) -> tuple[Any, Any] | None:
    """The widget whose `value` is a control's setting, and the one that holds it, or the same.

    None for the category of an unconditional model.
    """
    name = forms.label_of(control, gan)
    label = {
        "description": name,
        "tooltip": f"{name}. {control.info}" if control.info else name,
        "style": {"description_width": "11em"},
        "layout": {"width": "31em"},
    }
    value = forms.default_value(control, gan.class_names)
    widget: Any
    if isinstance(control, forms.Number):
        kind = ipywidgets.IntSlider if control.is_whole else ipywidgets.FloatSlider
        limits = {"min": control.low, "max": control.high, "step": control.step}
        slider = kind(value=value, continuous_update=False, **limits, **label)
        return (slider, slider) if control.largest == control.high else _with_box(slider, control)
    if isinstance(control, forms.Choice):
        options = [(text, word) for word, text in control.choices]
        layout = {"width": "max-content"}
        widget = ipywidgets.RadioButtons(options=options, value=value, layout=layout)
        return widget, ipywidgets.VBox([ipywidgets.Label(control.label), widget])
    if not gan.class_names:
        return None
    label |= {"options": class_choices(gan.class_names), "value": value}
    if len(gan.class_names) <= _FEW:
        widget = ipywidgets.Dropdown(**label)
    else:
        widget = ipywidgets.Combobox(continuous_update=False, **label)
    return widget, widget


def _with_box(slider: Any, control: forms.Number) -> tuple[Any, Any]:
    """A slider beside a box that takes larger numbers than the slider begins with."""
    slider.readout = False
    slider.layout.width = "24.5em"
    box = ipywidgets.IntText(value=slider.value, layout={"width": "6em"}, tooltip=slider.tooltip)

    def slid(change: Any) -> None:
        box.value = change.new

    def typed(change: Any) -> None:
        if control.low <= change.new <= control.largest:  # other numbers are refused elsewhere
            slider.max = max(slider.max, change.new)
            slider.value = change.new

    slider.observe(slid, "value")
    box.observe(typed, "value")
    return box, ipywidgets.HBox([slider, box])


def figure(gan: Gan, sheet: forms.SheetProvenance, picture: Image.Image) -> str:
    """A picture as HTML that needs no file: its columns above it, how to make it again below."""
    width = f"width:100%; max-width:{picture.width * _enlargement(gan)}px;"
    pixels = "image-rendering:pixelated;" if gan.config.resolution <= drawing.SMALL else ""
    return (
        f'<div style="{_HEADS} {width}">{column_heads(sheet)}</div>'
        f'<img alt="{html.escape(describe(sheet))}" style="{width} height:auto; {pixels}" '
        f'src="{_data(to_png(picture, sheet), "image/png")}">'
        f"<div>In Python: <code>{html.escape(python_call(gan, sheet))}</code></div>"
    )


def python_call(gan: Gan, sheet: forms.SheetProvenance) -> str:
    """The expression that makes a picture again, for a `gan` that is the model."""
    values = forms.settings_of(gan, sheet)
    if isinstance(sheet, LatentGridProvenance):
        noise = f"biggan.truncated_noise(1, {gan.config.z_dim}, {values['truncation']}, "
        moved = {number: values[key] for number, key in enumerate(forms.MOVES) if values.get(key)}
        return (
            f"gan.edit({noise}{values['seed']}), biggan.directions.default_directions(gan), "
            f"{moved}, {values['category']!r}, {values['truncation']})"
        )
    if isinstance(sheet, MorphProvenance):
        keys = ("steps", "num", "truncation", "seed_a", "seed_b")
        given = ", ".join(f"{key}={values[key]}" for key in keys)
        return f"gan.interpolate({values['category_a']!r}, {values['category_b']!r}, {given})"
    first, *more = truncations = list(dict.fromkeys(made.truncation for made in sheet.pictures))
    call = f"gan.sample({values['category']!r}, num={values['num']}, "
    call += f"truncation={'t' if more else first}, seed={values['seed']}"
    return f"[{call}, noise={values['noise']!r}) for t in {truncations}]" if more else f"{call})"


def _enlargement(gan: Gan) -> int:
    side = gan.config.resolution
    return _VISIBLE // side if side <= drawing.SMALL else 1


def _data(contents: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"
