"""A looping video from apple to banana to kiwi, as MP4 and as WebP.

python examples/morph_video.py [OUT_FOLDER]

The MP4 needs PyAV: pip install 'biggan[video]'.
"""

import sys
from pathlib import Path

import biggan
from biggan.interpolation import frames_of_seconds
from biggan.provenance import read_provenance
from biggan.video import make_frame, save_video


def main() -> None:
    """Write two files, the second from the provenance of the first."""
    out = Path(*sys.argv[1:2])
    out.mkdir(parents=True, exist_ok=True)
    gan = biggan.load()

    video = gan.plan_video(
        [("red apple", 0), ("banana", 5), ("kiwi", 1)],  # classes, and the seeds of their noise
        frames=frames_of_seconds(3, fps=20, loop="around"),
        fps=20,
        loop="around",
        path="slerp",
    )
    frames = (make_frame(pictures) for pictures in gan.draw_video(video))
    save_video(frames, out / "fruits.mp4", video.fps, provenance=video)

    again = read_provenance(out / "fruits.mp4")
    frames = (make_frame(pictures) for pictures in gan.draw_video(again))
    save_video(frames, out / "fruits.webp", again.fps, provenance=again)


if __name__ == "__main__":
    main()
