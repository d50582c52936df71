"""What pyproject.toml cannot say: the default model's folder travels in the wheel as fer_hf/_default_model."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

DEFAULT_MODEL = re.search(r'^DEFAULT_MODEL = "(.+)"$', Path("fer_hf/hub.py").read_text("utf-8"), re.MULTILINE)[1]
folder = Path("model_cards", DEFAULT_MODEL)
packages = find_packages(include=["fer_hf*"])
package_dir = {}
if (folder / "config.json").is_file():
    packages.append("fer_hf._default_model")
    package_dir["fer_hf._default_model"] = str(folder)
else:
    print(f"warning: {folder} is missing: this build carries no default model", file=sys.stderr)
if "editable_wheel" in sys.argv:
    # `accelerate launch training/train.py` puts training/ on the path, not the folder that holds the package.
    packages += find_packages(include=["training*"])

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "fer_hf._default_model": ["*.json", "*.safetensors", "*.md"],
        "fer_hf.demo": ["static/**", "examples/**"],
    },
)
