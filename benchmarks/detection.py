"""Time to find faces, on two threads: ours beside the package's own wiring of the same networks.

python -m benchmarks.detection [--photo FILE] [--repeat N]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageOps

from fer_hf.detection import MTCNNDetector
from fer_hf.image_io import read_image

THREADS = 2


def two_faces() -> Image.Image:
    """A 640×480 photo with two faces, about 50 and 95 pixels wide, made of two library portraits."""
    from matplotlib import cbook
    from skimage import data

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = Image.open(file).convert("RGB")
    canvas = Image.new("RGB", (640, 480), (90, 110, 130))
    canvas.paste(ImageOps.contain(Image.fromarray(data.astronaut()), (360, 360)), (0, 60))
    canvas.paste(ImageOps.contain(hopper, (280, 330)), (360, 80))
    return canvas


def median_ms(work: Callable[[], object], repeat: int) -> float:
    """The median of ``repeat`` timings, after three runs that warm up."""
    timings = []
    for turn in range(repeat + 3):
        start = time.perf_counter()
        work()
        if turn >= 3:
            timings.append(time.perf_counter() - start)
    return statistics.median(timings) * 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each photo and way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photo", action="append", default=[], help="another photo to time; may be given often")
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args(arguments)
    from facenet_pytorch import MTCNN

    torch.set_num_threads(THREADS)
    detector = MTCNNDetector()
    package = MTCNN(keep_all=True, min_face_size=20)
    photos = {"640×480, two faces": two_faces()} | {name: read_image(name).image for name in options.photo}
    print(f"medians of {options.repeat} on {THREADS} threads")
    for name, photo in photos.items():
        faces = detector.detect(photo).faces
        for way, work in {
            f"detect, {len(faces)} faces": lambda photo=photo: detector.detect(photo),
            "refine the same faces": lambda photo=photo, faces=faces: detector.refine(photo, faces),
            "facenet-pytorch, min_face_size=20": lambda photo=photo: package.detect(photo),
        }.items():
            print(f"{name:32} {way:36} {median_ms(work, options.repeat):7.1f} ms", flush=True)


if __name__ == "__main__":
    main()
