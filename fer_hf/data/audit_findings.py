"""What an audit means, in sentences."""

from pathlib import Path

_LEVELS = ("leak", "problem", "note")


def findings(found: dict) -> list[dict[str, str]]:
    """Sentences about the parts of an audit, ``{"level", "text"}`` each, the gravest first.

    A *leak* makes a validation or test score mean less, a *problem* teaches or judges wrongly, a *note* is good to
    know.
    """
    said = [*_copies(found), *_labels(found), *_pictures(found), *_reading(found)]
    return [{"level": level, "text": text} for wanted in _LEVELS for level, text in said if level == wanted]


def _copies(found: dict):
    exact = found["exact_duplicates"]
    for pair in exact["across"]:
        yield "leak", f"{_rows_and_rows(pair)} have exactly the same picture in the other split."
    for pair in found.get("near_duplicates", {}).get("across", ()):
        yield "leak", f"{_rows_and_rows(pair)} show the same photo as a row of the other split, with small differences."
    for splits, people in found["subjects"].get("overlap", {}).items():
        yield "leak", f"{_number(len(people), 'subject is', 'subjects are')} in {splits}: {_some(people)}."
    surplus = {name: rows for name, rows in exact["surplus_rows_within"].items() if rows}
    if surplus:
        rows = ", ".join(f"{rows:,} of {name}" for name, rows in surplus.items())
        yield "note", f"Rows that repeat an earlier picture of their own split: {rows}."
    near = found.get("near_duplicates")
    if near and near["pairs"]:
        yield "note", f"{_number(near['pairs'], 'pair', 'pairs')} of different pictures show the same photo."


def _labels(found: dict):
    conflicts = found["conflicts"]
    if conflicts:
        rows = sum(map(len, conflicts))
        yield (
            "problem",
            f"{_number(len(conflicts), 'group', 'groups')} of equal pictures carry different labels ({rows:,} rows).",
        )
    near = found.get("near_duplicates")
    if near and near["pairs_labelled_differently"]:
        count = _number(near["pairs_labelled_differently"], "pair of near copies carries", "pairs of near copies carry")
        yield "problem", f"{count} different labels."
    doubtful = found.get("label_errors", {})
    if doubtful.get("list"):
        yield (
            "note",
            f"{doubtful['agreement']:.0%} of the labels agree with what {Path(doubtful['judged_by']).name} makes of "
            f"the pictures, judged out of fold; the {len(doubtful['list']):,} most doubtful labels are listed.",
        )
    if "left_out" in doubtful:
        yield "note", f"Doubtful labels were not looked for: {doubtful['left_out']}."
    for gap in found["class_gaps"]:
        yield "problem", f"{gap[0].upper()}{gap[1:]}."
    for split, classes in found["classes"].items():
        present = {name: rows for name, rows in classes.items() if rows}
        if present and max(present.values()) >= 10 * min(present.values()):
            small, large = min(present, key=present.get), max(present, key=present.get)
            ratio = present[large] / present[small]
            yield "note", f"In {split}, {large} has {ratio:.0f} times as many rows as {small} ({present[small]:,})."


def _pictures(found: dict):
    constant = found["constant"]
    if constant:
        yield "problem", f"{_number(len(constant), 'picture is', 'pictures are')} of a single colour."
    faces = found.get("faces")
    if faces and faces["sampled"]:
        none = faces["pictures_by_faces"].get("0", 0)
        several = faces["sampled"] - none - faces["pictures_by_faces"].get("1", 0)
        if none or several:
            seen = " and ".join(f"{what} in {n:,}" for what, n in (("no face", none), ("several faces", several)) if n)
            yield "note", f"Of {faces['sampled']:,} pictures looked at, the detector sees {seen}."


def _reading(found: dict):
    for report in found["reading"]:
        if report["skipped"]:
            first = report["skipped"][0]
            count = _number(len(report["skipped"]), "row", "rows")
            yield "problem", f"{count} cannot be read, such as {first['row_id']}: {first['reason'].rstrip('.')}."
        if report["dropped"]:
            classes = ", ".join(f"{name} ({rows:,})" for name, rows in report["dropped"].items())
            yield "note", f"Rows of classes that are not used were left out: {classes}."
        for note in report["notes"]:
            yield "note", f"{note[0].upper()}{note[1:]}."


def _rows_and_rows(pair: dict) -> str:
    first, second = pair["splits"]
    return f"{pair['rows'][first]:,} rows of {first} and {pair['rows'][second]:,} of {second}"


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
