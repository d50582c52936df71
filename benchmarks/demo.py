"""The demo under load: visitors at once, each with a photo of their own; ``python -m benchmarks.demo --help``.

Starts ``app.py`` in a process of its own and talks to it as the page does. Prints a table: answers, refusals ("busy"),
errors, answers that belong to another visitor, median and 95th percentile of the waiting time; then the memory of the
process over many requests.
"""

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
import uuid
from html import unescape
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

WARM_UP = 500
EXAMPLE = Path("fer_hf/demo/examples/astronaut.jpg")


def photo_of(number: int) -> tuple[bytes, tuple[int, int]]:
    """A JPEG that only this visitor has: the example on a canvas whose size tells the number."""
    size = (512 + 2 * (number % 97), 512 + 2 * (number // 97 % 97))
    canvas = Image.new("RGB", size, tuple(int(v) for v in np.random.default_rng(number).integers(60, 200, 3)))
    canvas.paste(Image.open(EXAMPLE))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), size


async def visit(client: httpx.AsyncClient, component: int, number: int) -> tuple[str, float]:
    """How one visit went ("ok", "busy", "error" or "mixed up"), and its seconds."""
    data, size = photo_of(number)
    fields = {"component_id": str(component), "fn_name": "analyse", "session_hash": uuid.uuid4().hex[:10]}
    name, start = f"visitor-{number}.jpg", time.perf_counter()
    answer = await client.post("gradio_api/component_server/", data=fields, files={"file": (name, data)}, timeout=120)
    elapsed_s = time.perf_counter() - start
    if answer.status_code != 200:
        return "error", elapsed_s
    found = answer.json()
    if "error" in found:
        return ("busy" if "try again" in found["error"] else "error"), elapsed_s
    record = json.loads(unescape(re.search(r'data-record="([^"]*)"', found["html"]).group(1)))
    mine = (record["file"], record["width"], record["height"]) == (name, *size)
    happy = any(face["label"] == "happy" for face in record["faces"])
    return ("ok" if mine and happy else "mixed up"), elapsed_s


async def crowd(client: httpx.AsyncClient, component: int, visitors: int, start: int) -> list[tuple[str, float]]:
    return list(await asyncio.gather(*(visit(client, component, start + n) for n in range(visitors))))


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, on Linux."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024


async def measure(address: str, pid: int, visitors: list[int], requests: int) -> None:
    async with httpx.AsyncClient(base_url=address, limits=httpx.Limits(max_connections=200)) as client:
        config = (await client.get("config")).json()
        component = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "photo")
        await crowd(client, component, 4, 100_000)
        print("| visitors at once | ok | busy | error | mixed up | median s | p95 s |\n|--:|--:|--:|--:|--:|--:|--:|")
        for count in visitors:
            results = await crowd(client, component, count, count * 1000)
            kinds = [kind for kind, _ in results]
            waits = [wait for kind, wait in results if kind == "ok"] or [float("nan")]
            cells = [kinds.count(kind) for kind in ("ok", "busy", "error", "mixed up")]
            figures = f"{statistics.median(waits):.2f} | {np.percentile(waits, 95):.2f}"
            print(f"| {count} | {' | '.join(map(str, cells))} | {figures} |", flush=True)
        if requests:
            # Photos of new sizes fill the caches of torch's convolutions for a few hundred requests.
            for start in range(0, WARM_UP, 20):
                await crowd(client, component, 20, 200_000 + start)
            warm_mb = resident_mb(pid)
            for start in range(0, requests, 20):
                await crowd(client, component, 20, 300_000 + start)
            print(f"\nMemory: {warm_mb:.0f} MB warm, {resident_mb(pid):.0f} MB after {requests} more requests.")


def start_app(port: int) -> tuple[subprocess.Popen, float]:
    """The running demo and the seconds it took to be ready."""
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py"], env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "ready" in line:
            return process, time.perf_counter() - start
    raise RuntimeError("app.py ended before it was ready")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--requests", type=int, default=2000, help="for the memory; 0 leaves it out")
    parser.add_argument("--port", type=int, default=7899)
    options = parser.parse_args(arguments)
    process, ready_s = start_app(options.port)
    try:
        print(f"Start to ready: {ready_s:.1f} s\n")
        asyncio.run(measure(f"http://127.0.0.1:{options.port}/", process.pid, options.visitors, options.requests))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
