"""Videos: a sequence of pictures as one file, an MP4, a GIF or an animated WebP.

Frames are written as they come and none is kept, so a video may be as long as the disk allows. For
that the containers of GIF (GIF89a) and WebP (Google's "WebP Container Specification") are put
together here, of frames that Pillow encodes one by one: Pillow's own writers hold all frames in
memory. MP4 is written by PyAV, the bindings of FFmpeg's libraries.

Every file says in a comment how it was made, so that it can be made again.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from biggan.atomic_write import replaced_atomically
from biggan.errors import InputError, real_number
from biggan.images import make_grid
from biggan.provenance import COMMENT_PREFIX, VideoProvenance
from biggan.provenance_files import require_pyav


class _Format(NamedTuple):
    fastest: int
    """Frames a second: viewers slow down, or skip frames of, what asks for more."""
    largest: int
    """Pixels a side: of MP4 what decoders take, of the others what can be written."""


_FORMATS = {".mp4": _Format(120, 8192), ".gif": _Format(50, 65535), ".webp": _Format(60, 16383)}

_SLOWEST = 0.1  # frames a second: a GIF cannot show one for eleven minutes

VIDEO_ENDINGS = tuple(_FORMATS)

_SMALL = 64  # up to this many pixels a side pictures are enlarged,
_WATCHABLE = 256  # by a whole number, to at most this many

_COLOUR_SAMPLES = 64  # pixels a side by which a frame's 256 colours are chosen

# Of H.264: to the eye the pictures themselves. With its macroblock tree x264 decides by memory that
# nobody wrote where widths are not of its liking: the same frames then gave other files.
_QUALITY = {"crf": "17", "preset": "medium", "x264-params": "mbtree=0"}

_ENCODER = "libx264"
_NO_ENCODER = (
    f"the FFmpeg of PyAV has no encoder {_ENCODER} for MP4: install PyAV with pip install "
    "--upgrade "
    "--force-reinstall av, or write .webp or .gif"
)


def check_video(path: Path, fps: float) -> None:
    """Refuse what `save_video` cannot write, before the frames are made.

    Raises:
        InputError: An ending that names no format of videos, an impossible frame rate, or an MP4
            where PyAV is not installed or has no encoder for it.
    """
    ending = path.suffix.lower()
    if ending not in _FORMATS:
        raise InputError(f"cannot write {path.name}: the ending must be .mp4, .png, .gif or .webp")
    fps, fastest = real_number(fps, "the frame rate"), _FORMATS[ending].fastest
    if not _SLOWEST <= fps <= fastest:
        raise InputError(
            f"the frame rate of a {ending} file must be at least {_SLOWEST} and at most {fastest}, "
            f"not {fps:g}"
        )
    if ending == ".mp4":
        require_pyav()
        from av.codec.codec import Codec, UnknownCodecError

        try:
            Codec(_ENCODER, "w")
        except UnknownCodecError:
            raise InputError(_NO_ENCODER) from None


def make_frame(pictures: Sequence[Image.Image]) -> Image.Image:
    """Lay out the pictures of one moment, of one size, side by side and large enough to be watched.

    Those of at most 64 pixels a side are enlarged by the largest whole number that keeps them
    within 256, every pixel to a square.
    """
    if not pictures:
        raise InputError("a frame needs at least one picture")
    side = max(pictures[0].size)
    if side <= _SMALL:
        factor, nearest = _WATCHABLE // side, Image.Resampling.NEAREST
        pictures = [ImageOps.scale(picture, factor, nearest) for picture in pictures]
    return make_grid(pictures, columns=len(pictures))


def save_video(
    frames: Iterable[Image.Image],
    path: str | Path,
    fps: float,
    *,
    repeat: bool = True,
    provenance: VideoProvenance | None = None,
) -> None:
    """Write a video that appears whole or not at all. Frames are taken one by one; none is kept.

    Args:
        frames: At least one, all of one size and mode.
        path: Ends in .mp4 (H.264; an odd width or height is made even by repeating the last column
            or row), .gif (256 colours a frame) or .webp (lossless). The folder exists.
        fps: Frames a second. Of a GIF each frame is shown for a whole number of hundredths of a
            second, of a WebP of thousandths: such that the error never adds up.
        repeat: Whether viewers shall play it for ever. An MP4 cannot say; those who show it do.
        provenance: Kept in the file's comment, for `read_provenance`.

    Raises:
        InputError: As `check_video`, frames that are too large, or the file cannot be written.
        ValueError: There is no frame, or they differ in size or mode.
    """
    path = Path(path)
    check_video(path, fps)
    comment = None if provenance is None else COMMENT_PREFIX + provenance.to_json()
    alike = _checked_frames(frames, path)
    with replaced_atomically(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _write_mp4(temporary, alike, fps, comment)
            return
        write = _write_gif if path.suffix.lower() == ".gif" else _write_webp
        with temporary.open("wb") as file:
            write(file, alike, fps, repeat, comment)


def _checked_frames(frames: Iterable[Image.Image], path: Path) -> Iterator[Image.Image]:
    """The same frames, of which there is at least one and which are alike and not too large."""
    largest = _FORMATS[path.suffix.lower()].largest
    first = None
    for frame in frames:
        if first is None:
            first = frame.size, frame.mode
            if max(frame.size) > largest:
                raise InputError(
                    f"{path.name} would be {frame.width} x {frame.height} pixels, but its format "
                    f"allows {largest} per side: use fewer paths"
                )
        if (frame.size, frame.mode) != first:
            raise InputError("the frames of a video must share one size and one mode")
        yield frame
    if first is None:
        raise InputError("a video needs at least one frame")


def _shown_for(fps: float, unit: int) -> Iterator[int]:
    """For each frame, how many of `unit` to a second it is shown: rounded, and right in the sum."""
    for start, end in pairwise(round(unit * number / fps) for number in count()):
        yield end - start


# GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt; the numbers are its sections.


def _write_gif(
    file: IO[bytes], frames: Iterator[Image.Image], fps: float, repeat: bool, comment: str | None
) -> None:
    started = False
    for frame, delay in zip(frames, _shown_for(fps, 100), strict=False):
        if not started:
            started = True
            file.write(b"GIF89a" + struct.pack("<HHBBB", *frame.size, 0, 0, 0))  # 17, 18
            if repeat:
                file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # 26; a loop without end
            if comment is not None:
                file.write(b"!\xfe" + _sub_blocks(comment.encode("ascii")))  # 24
        file.write(b"!\xf9" + _sub_blocks(struct.pack("<BHB", 4, delay, 0)))  # 23; leave in place
        file.write(_gif_image(frame))
    file.write(b";")  # 27


def _gif_image(frame: Image.Image) -> bytes:
    """A frame with a colour table of its own: image descriptor, table and pixels (20 to 22)."""
    contents = io.BytesIO()
    few_colours = frame if frame.mode == "L" else _in_256_colours(frame.convert("RGB"))
    few_colours.save(contents, "GIF", interlace=False)
    gif = contents.getvalue()
    table_size = gif[10] & 7  # 18: log2 of its colours, less one; it follows
    image = 13 + (3 << (table_size + 1))
    assert gif[image] == 0x2C, "Pillow has put something before a GIF's image"
    assert gif[-1] == 0x3B, "Pillow has put something behind a GIF's image"
    descriptor = gif[image : image + 9] + bytes([0x80 | table_size])
    return descriptor + gif[13:image] + gif[image + 10 : -1]


def _in_256_colours(frame: Image.Image) -> Image.Image:
    """The frame in the 256 colours that suit it best, chosen by every so many of its pixels.

    As faithful as a choice by all of them (measured: equal PSNR) and ten times faster.
    """
    size = [min(side, _COLOUR_SAMPLES) for side in frame.size]
    colours = frame.resize((size[0], size[1]), Image.Resampling.NEAREST).quantize(256)
    return frame.quantize(palette=colours, dither=Image.Dither.NONE)


def _sub_blocks(contents: bytes) -> bytes:
    """Contents in pieces of at most 255 bytes, each after its length (15); an empty one ends it."""
    pieces = [contents[start : start + 255] for start in range(0, len(contents), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\x00"


def _write_webp(
    file: IO[bytes], frames: Iterator[Image.Image], fps: float, repeat: bool, comment: str | None
) -> None:
    started = False
    for frame, duration in zip(frames, _shown_for(fps, 1000), strict=False):
        size = _three_bytes(frame.width - 1) + _three_bytes(frame.height - 1)
        if not started:
            started = True
            # The length of all is filled in at the end.
            file.write(b"RIFF\x00\x00\x00\x00WEBP")
            transparent = 0x10 if frame.mode == "RGBA" else 0
            flags = 0x02 | transparent | (0 if comment is None else 0x08)  # animation, Exif
            file.write(_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size))
            file.write(_chunk(b"ANIM", struct.pack("<IH", 0, 0 if repeat else 1)))
        # At the upper left corner, replacing what was there.
        head = bytes(6) + size + _three_bytes(duration) + b"\x02"
        file.write(_chunk(b"ANMF", head + _webp_image(frame)))
    if comment is not None:
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = comment
        file.write(_chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\x00\x00")))
    length = file.tell() - 8
    if length >= 2**32:
        raise InputError("the video would be over 4 GB, which WebP does not support; write an .mp4")
    file.seek(4)
    file.write(struct.pack("<I", length))


def _webp_image(frame: Image.Image) -> bytes:
    """A frame's pixels as a lossless bitstream, a chunk."""
    contents = io.BytesIO()
    # Method 1 takes a third of the time of the default and the same space.
    frame.save(contents, "WEBP", lossless=True, method=1, exact=True)
    webp = contents.getvalue()
    assert webp[12:16] == b"VP8L", "Pillow has put something else into a WebP"
    return webp[12:]


def _chunk(name: bytes, contents: bytes) -> bytes:
    assert len(contents) % 2 == 0, "WebP would pad this chunk; those written here are even"
    return name + struct.pack("<I", len(contents)) + contents


def _three_bytes(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _write_mp4(path: Path, frames: Iterator[Image.Image], fps: float, comment: str | None) -> None:
    import av
    from av.codec.codec import UnknownCodecError

    try:
        _encode_mp4(path, frames, fps, comment)
    except UnknownCodecError:
        raise InputError(_NO_ENCODER) from None
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # such as a full disk
            raise
        raise InputError(f"FFmpeg cannot write the MP4: {error}; write .webp or .gif") from error


def _encode_mp4(path: Path, frames: Iterator[Image.Image], fps: float, comment: str | None) -> None:
    import av

    # The index goes to the front, so that browsers start before they have the whole file.
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream: Any = None
        for frame in frames:
            pixels = _even(np.asarray(frame.convert("RGB")))  # (H, W, 3)
            if stream is None:
                stream = _h264_stream(container, fps, *pixels.shape[:2])
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _h264_stream(container: Any, fps: float, height: int, width: int) -> Any:
    stream = container.add_stream(_ENCODER, rate=Fraction(fps).limit_denominator(10_000))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = _QUALITY
    # BT.709, by its number in ITU-T H.273. Where a file does not say, players guess by its size.
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1
    context.color_range = 1  # 16 to 235
    return stream


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) of even height and width, as two by two pixels share a colour in H.264."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
