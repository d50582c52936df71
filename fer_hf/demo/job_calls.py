"""The calls by which a page's script starts, watches and cancels a job."""

from collections.abc import Callable

from gradio.data_classes import DataWithFiles

from fer_hf.demo.calls import REFUSALS
from fer_hf.demo.jobs import Jobs, Work


def job_calls(
    jobs: Jobs, prepare: Callable[[DataWithFiles], Work], undo: Callable[[dict], object] | None = None
) -> list[Callable]:
    """``start(form)``, ``look(id)`` and ``cancel(id)`` for an HTML component; ``prepare`` checks the form.

    ``undo`` is as in ``Jobs.start``.
    """

    def start(form) -> dict:
        try:
            return {"job": jobs.start(prepare(form), undo)}
        except REFUSALS as error:
            return {"error": str(error)}

    def look(job) -> dict:
        try:
            return jobs.look(str(job))
        except REFUSALS as error:
            return {"error": str(error)}

    def cancel(job) -> dict:
        jobs.cancel(str(job))
        return {}

    return [start, look, cancel]
