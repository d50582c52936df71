"""Reading and auditing made data of FER2013's size: seconds, rows a second and peak memory.

python -m benchmarks.data [--rows N] [--jpegs N]

Each line is measured in a process of its own, which starts without a cache. The pictures are smooth noise, which costs
about as much to encode and decode as faces of the same size.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fer_hf.labels import FER7

USAGES = (("Training", 0.8), ("PublicTest", 0.9), ("PrivateTest", 1.0))


def picture(generator: np.random.Generator, side_px: int) -> Image.Image:
    """Smooth noise with some grain, RGB."""
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side_px, side_px))
    grain = generator.normal(0, 6, (side_px, side_px, 1))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def make_csv(path: Path, rows: int) -> None:
    """A CSV as FER2013's."""
    generator = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for row in range(rows):
            usage = next(name for name, end in USAGES if row < end * rows)
            pixels = " ".join(map(str, picture(generator, 48).convert("L").tobytes()))
            file.write(f"{row % 7},{pixels},{usage}\n")


def make_folder(folder: Path, count: int) -> None:
    """Class folders of JPEGs of 100 pixels, RAF-DB's size."""
    generator = np.random.default_rng(0)
    for index in range(count):
        file = folder / FER7[index % 7] / f"{index:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(generator, 100).save(file, quality=90)


def read(source: Path, cache: Path) -> None:
    """Read into a DatasetDict."""
    _rows(source, cache)


def to_parquet(source: Path, cache: Path) -> None:
    """Read and write as parquet."""
    from fer_hf.data.convert import convert_splits

    convert_splits(_rows(source, cache), cache / "out.parquet")


def audited(source: Path, cache: Path) -> None:
    """Read, look for everything an audit looks for, and write its page."""
    from fer_hf.data.audit import AuditOptions, audit_splits, write_audit

    splits = _rows(source, cache)
    write_audit(audit_splits(splits, AuditOptions()), splits, "benchmark", cache / "audit")


def _rows(source: Path, cache: Path):
    import datasets

    from fer_hf.data.sources import load_source

    datasets.config.HF_DATASETS_CACHE = cache
    datasets.disable_progress_bars()
    return load_source(source)


def measured(work: Callable[[Path, Path], None], source: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory in MB of the work in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as cache, context.Pool(1) as pool:
        return pool.apply(_measured_here, (work, source, Path(cache)))


def _measured_here(work: Callable[[Path, Path], None], source: Path, cache: Path) -> tuple[float, float, float]:
    start, start_cpu = time.perf_counter(), time.process_time()
    work(source, cache)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return time.perf_counter() - start, time.process_time() - start_cpu, peak_mb


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=35_887, help="of the CSV (default: %(default)s)")
    parser.add_argument("--jpegs", type=int, default=10_000, help="in the folder (default: %(default)s)")
    parser.add_argument("--audit", metavar="SOURCE", help="audit this in place of the made CSV")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        table, folder = Path(work, "fer2013.csv"), Path(work, "jpegs")
        make_csv(table, options.rows)
        make_folder(folder, options.jpegs)
        lines = (
            (f"read {options.rows:,} rows of CSV", read, table),
            ("read them and write parquet", to_parquet, table),
            (f"read {options.jpegs:,} JPEGs of 100 pixels", read, folder),
            (f"audit {options.audit or 'the rows of CSV'}", audited, Path(options.audit or table)),
        )
        for name, kind, source in lines:
            seconds, processor, peak_mb = measured(kind, source)
            print(f"{name:44} {seconds:7.1f} s {processor:7.1f} s of processor {peak_mb:7.0f} MB", flush=True)


if __name__ == "__main__":
    main()
