"""Measured figures of the embedded models as HTML; every number comes from a model's report.json."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

SHOWN_PER_CLASS = ("precision", "recall", "f1")
SHOWN_METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro F1"}


def read_reports(folder: Path) -> list[dict]:
    """The evaluations beside a model's weights, in file order; empty where there are none."""
    found = []
    for path in sorted((*folder.glob("report*.json"), *folder.glob("reports/*.json"))):
        content = json.loads(path.read_text("utf-8"))
        found += content if isinstance(content, list) else [content]
    return found


def headline_html(folder: Path) -> str:
    """A table of the figures, with 95% intervals, of each evaluation of a model; empty where there is none."""
    rows = [row for report in read_reports(folder) for row in _rows(report)]
    if not rows:
        return ""
    heads = "".join(
        f'<th scope="col">{title}</th>' for title in ("Data", "Views", *SHOWN_METRICS.values(), "ECE, cross-fitted")
    )
    return _scrolling(heads, "".join(rows), "Measured figures")


def _rows(report: Mapping) -> list[str]:
    data = f"{report.get('split', '')}, {report.get('labels', '')} (n = {report.get('n', '?')})"
    rows = []
    for key, calibration, views in (("metrics", "single", "one"), ("metrics_tta", "tta", "several, averaged")):
        metrics = report.get(key) or {}
        if metrics:
            errors = (report.get("calibration", {}).get(calibration) or {}).get("ece", {})
            shown = [*(metrics.get(name) for name in SHOWN_METRICS), errors.get("cross_fitted")]
            cells = "".join(f"<td>{figure(value)}</td>" for value in shown)
            rows.append(f"<tr><td>{escape(data)}</td><td>{views}</td>{cells}</tr>")
    return rows


def figure(value: float | Mapping | None) -> str:
    """``0.876 (0.864–0.888)`` from a number or from ``{"value", "low", "high"}``; a dash for None."""
    if value is None or (isinstance(value, Mapping) and value["value"] is None):
        return "–"
    if not isinstance(value, Mapping):
        return f"{value:.3f}"
    if "low" not in value:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def failures_html(report: Mapping) -> str:
    """Where one evaluation's model fails: its most frequent mistakes, and precision, recall and F1 of each class."""
    mistakes = "".join(
        f"<li>{escape(one['true'])} taken for {escape(one['predicted'])}: {one['n']} faces, "
        f"{100 * one['share']:.0f}% of all {escape(one['true'])} ones</li>"
        for one in report.get("most_confused", ())
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(one["label"])}</th><td>{one["n"]}</td>'
        f"{''.join(f'<td>{figure(one.get(name))}</td>' for name in SHOWN_PER_CLASS)}</tr>"
        for one in report.get("per_class", ())
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Expression", "Faces", "Precision", "Recall", "F1"))
    table = _scrolling(heads, rows, "Figures of each expression") if rows else ""
    return (f"<p>Most frequent mistakes:</p><ul>{mistakes}</ul>" if mistakes else "") + table


def robustness_html(folder: Path) -> str:
    """A table of the accuracy on pictures made worse, from a model's robustness.json; empty where there is none."""
    path = folder / "robustness.json"
    if not path.is_file():
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(one["name"])}</th><td>{escape(one["unit"] or "")}</td><td>{_steps(one)}</td></tr>'
        for one in json.loads(path.read_text("utf-8"))["corruptions"]
    )
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("Made worse by", "Unit", "Accuracy at each strength"))
    return _scrolling(heads, rows, "Accuracy on pictures made worse")


def _steps(corruption: Mapping) -> str:
    return ", ".join(
        f"{escape(str(step['strength']))}: {step['accuracy']['value']:.3f}" for step in corruption["strengths"]
    )


def _scrolling(heads: str, rows: str, label: str) -> str:
    return (
        f'<div class="fer-scroll" tabindex="0" role="region" aria-label="{label}"><table class="fer-table">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
