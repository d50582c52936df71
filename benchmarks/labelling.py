"""Speed, processor time and peak memory of training/predict.py with one and two processes, on photos with two faces.

python -m benchmarks.labelling [--rows N] [--model M]
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.detection import two_faces
from fer_hf.hub import default_model_path

SCRIPT = Path(__file__).parents[1] / "training" / "predict.py"


def write_photos(path: Path, rows: int) -> None:
    """A parquet file of the same JPEG over and over, in row groups of 25."""
    buffer = io.BytesIO()
    two_faces().save(buffer, "JPEG", quality=90)
    pictures = [{"bytes": buffer.getvalue(), "path": None}] * rows
    pq.write_table(pa.table({"image": pictures}), path, row_group_size=25, use_dictionary=False)


@dataclass(frozen=True)
class Run:
    """Rows a second of all processes together, without the time to start; their CPU time; the largest one's memory."""

    rows_per_s: float
    cpu_s: float
    peak_mb: int


def label(data: Path, processes: int, faces: str, model: str) -> Run:
    """What labelling a parquet file takes."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, SCRIPT, "--data", data, "--output", Path(output, "labels"), "--model", model]
        children = [
            subprocess.Popen(
                [*map(str, command), "--faces", faces, "--rows-per-shard", "25"],
                env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(processes)
        ]
        rates, cpu_s, peaks = [], [], []
        for child in children:
            printed = child.stdout.read()
            _, status, used = os.wait4(child.pid, 0)
            if status:
                raise RuntimeError(f"a process ended with status {status}: {printed}")
            rates.append(float(re.findall(r"([\d.]+) a second", printed)[-1]))
            cpu_s.append(used.ru_utime + used.ru_stime)
            peaks.append(used.ru_maxrss // 1024)
    return Run(sum(rates), sum(cpu_s), max(peaks))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each way and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=400, help="of the small set; the other has four times as many")
    parser.add_argument("--model", default=str(default_model_path()))
    options = parser.parse_args(arguments)
    if options.rows < 50:
        parser.error("--rows must be at least 50, two shards")
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.parquet"), Path(folder, "large.parquet")
        write_photos(small, options.rows)
        write_photos(large, 4 * options.rows)
        for faces in ("detect", "crop"):
            for processes in (1, 2):
                few, many = (label(data, processes, faces, options.model) for data in (small, large))
                cpu_ms = 1000 * (many.cpu_s - few.cpu_s) / (3 * options.rows)  # what both take to start cancels out
                peaks = f"{few.peak_mb} MB each for {options.rows:,} rows, {many.peak_mb} MB for {4 * options.rows:,}"
                speed = f"{many.rows_per_s:.1f} rows/s, {cpu_ms:.1f} ms of CPU a row"
                print(f"{faces}, {processes} process(es): {speed}, peak {peaks}", flush=True)


if __name__ == "__main__":
    main()
