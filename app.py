"""Launches the demo: on this machine at http://127.0.0.1:7860, or as a Hugging Face Space."""

import os
import signal
import sys
import tempfile

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Every size of photo compiles convolutions of its own, and torch keeps 1,024 of them: hundreds of megabytes of photos
# long gone. This many hold what one size needs, so that a camera or a clip compiles nothing twice.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  (ZeroGPU wants to be imported before torch)

from fer_hf.demo.limits import ScratchFolder, end_work

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder below goes away however the demo ends
    with ScratchFolder() as scratch:
        # Set before Gradio is imported: every temporary file lands in a folder that is swept and removed at the end.
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(scratch.path)
        from fer_hf.demo.page import build_page, configured_store, launch_options
        from fer_hf.demo.shelf import open_shelf
        from fer_hf.hub import ModelError, configured_model

        try:
            shelf = open_shelf(configured_model())
        except ModelError as error:
            sys.exit(str(error))
        try:
            store = configured_store(shelf.first.recognizer.labels)
        except (ValueError, OSError) as error:
            sys.exit(f"Contributions cannot be set up: {error}")
        page = build_page(shelf, store=store)
        _, address, _ = page.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
        print(f"The demo is ready at {address}", flush=True)
        try:
            page.block_thread()
        finally:
            end_work()
