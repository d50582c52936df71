"""The short benchmarks, one table each; ``python -m benchmarks.NAME`` runs another, such as ``training``."""

from benchmarks import detection, inference

for benchmark in (inference, detection):
    benchmark.main([])
    print()
