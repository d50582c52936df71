"""The checks of an audit: each gives a part of the JSON from what was seen of every row."""

from collections import Counter
from itertools import combinations

import datasets
import numpy as np

from fer_hf.data.audit_duplicates import groups_of_equal, near_pairs
from fer_hf.data.audit_faces import faces_per_picture
from fer_hf.data.audit_labels import label_doubts, log_probabilities
from fer_hf.data.audit_scan import Scan

DOUBTFUL_SHARE = 0.05  # of the rows that were judged: how much of the ranking of doubtful labels is kept
_MAX_SIZES = 20


def counts(scanned: Scan) -> dict:
    """Rows by class and split, and by size and mode of the picture."""
    classes = {
        split: dict(
            zip(scanned.class_names, np.bincount(labels, minlength=len(scanned.class_names)).tolist(), strict=True)
        )
        for split, labels in _by_split(scanned, scanned.labels).items()
    }
    sizes = Counter(f"{width}×{height}" for width, height in scanned.sizes.tolist())
    shorter = scanned.sizes.min(axis=1)
    return {
        "classes": classes,
        "sizes": {
            "most_common": dict(sizes.most_common(_MAX_SIZES)),
            "different": len(sizes),
            "shorter_side_px": {
                "smallest": int(shorter.min()),
                "median": int(np.median(shorter)),
                "largest": int(shorter.max()),
            },
        },
        "modes": dict(Counter(scanned.modes.tolist()).most_common()),
    }


def exact_copies(scanned: Scan) -> dict:
    """Groups of rows with equal pixels, within and across splits, and those whose labels differ."""
    groups = groups_of_equal(scanned.hashes)
    within = Counter()
    for group in groups:
        for split, number in Counter(scanned.splits[group].tolist()).items():
            within[scanned.split_names[split]] += number - 1
    return {
        "exact_duplicates": {
            "groups": len(groups),
            "distinct_pictures": len(scanned.hashes) - sum(len(group) - 1 for group in groups),
            "surplus_rows_within": {name: within[name] for name in scanned.split_names},
            "across": _across(scanned, [(group, group) for group in groups]),
            "across_list": [_labelled(scanned, g) for g in groups if len(set(scanned.splits[g].tolist())) > 1],
            "list": [scanned.row_ids[group].tolist() for group in groups],
        },
        "conflicts": [_labelled(scanned, group) for group in groups if len(set(scanned.labels[group].tolist())) > 1],
    }


def near_copies(scanned: Scan) -> dict:
    """Pairs of different pictures that show the same photo; of exact copies, the first row stands for all."""
    groups = groups_of_equal(scanned.hashes)
    members = {int(group[0]): group for group in groups}
    surplus = np.concatenate([group[1:] for group in groups]) if groups else np.empty(0, np.int64)
    distinct = np.setdiff1d(np.arange(len(scanned.hashes)), surplus)
    pairs = near_pairs(scanned.thumbnails, distinct)
    copies = [tuple(members.get(row, np.array([row])) for row in (pair.first, pair.second)) for pair in pairs]
    return {
        "pairs": len(pairs),
        "pairs_labelled_differently": sum(int(scanned.labels[p.first] != scanned.labels[p.second]) for p in pairs),
        "across": _across(scanned, copies),
        "list": [
            {
                "rows": _labelled(scanned, [pair.first, pair.second]),
                "correlation": round(pair.correlation, 3),
                "mirrored": pair.mirrored,
            }
            for pair in pairs
        ],
    }


def subjects(scanned: Scan) -> dict:
    """How many subjects each split shows, and which of them are in two splits."""
    if scanned.subjects is None:
        return {"known": False}
    seen = {name: {s for s in values if s is not None} for name, values in _by_split(scanned, scanned.subjects).items()}
    overlap = {f"{a} and {b}": sorted(seen[a] & seen[b]) for a, b in combinations(seen, 2) if seen[a] & seen[b]}
    return {"known": True, "in_split": {name: len(values) for name, values in seen.items()}, "overlap": overlap}


def doubtful_labels(source: datasets.DatasetDict, scanned: Scan, loaded, seed: int) -> dict:
    """The rows whose labels are most doubtful, by out-of-fold fits on the probabilities of a ``hub.LoadedModel``."""
    features = log_probabilities(source, loaded.model, loaded.processor)
    doubts = label_doubts(features, scanned.labels, len(scanned.class_names), seed)
    ranking, own = doubts.ranking(), doubts.own()
    likeliest = np.nan_to_num(doubts.probabilities).argmax(axis=1)
    return {
        "judged_by": loaded.source,
        "judged_rows": len(ranking),
        "agreement": float((likeliest == scanned.labels)[ranking].mean()) if len(ranking) else None,
        "list": [
            {
                "row_id": scanned.row_ids[row],
                "label": scanned.class_of(row),
                "likelier": scanned.class_names[likeliest[row]],
                "own_probability": round(float(own[row]), 4),
                "likelier_probability": round(float(doubts.probabilities[row, likeliest[row]]), 4),
            }
            for row in ranking[: round(DOUBTFUL_SHARE * len(ranking))]
        ],
    }


def faces(source: datasets.DatasetDict, num_pictures: int, seed: int) -> dict:
    """How many faces a sample of the pictures shows, and which of them do not show one."""
    from fer_hf.detection import MTCNNDetector

    numbers, others = faces_per_picture(source, MTCNNDetector(), num_pictures, seed)
    return {
        "sampled": sum(numbers.values()),
        "pictures_by_faces": {str(number): numbers[number] for number in sorted(numbers)},
        "not_one": [{"row_id": source[name][row]["row_id"], "faces": number} for name, row, number in others],
    }


def _by_split(scanned: Scan, values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[scanned.splits == index] for index, name in enumerate(scanned.split_names)}


def _labelled(scanned: Scan, rows) -> list[dict]:
    return [
        {"row_id": scanned.row_ids[row], "split": scanned.split_of(row), "label": scanned.class_of(row)} for row in rows
    ]


def _across(scanned: Scan, copies: list[tuple[np.ndarray, np.ndarray]]) -> list[dict]:
    """For each two splits, how many rows of each have a copy in the other; ``copies`` are rows on either side."""
    found: dict[tuple[int, int], tuple[set, set]] = {}
    for sides in copies:
        for here, there in (sides, sides[::-1]):
            others = set(scanned.splits[there].tolist())
            for row in here.tolist():
                for other in others - {int(scanned.splits[row])}:
                    key = tuple(sorted((int(scanned.splits[row]), other)))
                    found.setdefault(key, (set(), set()))[key.index(scanned.splits[row])].add(row)
    return [
        {
            "splits": [scanned.split_names[i] for i in key],
            "rows": {scanned.split_names[i]: len(rows) for i, rows in zip(key, sides, strict=True)},
        }
        for key, sides in sorted(found.items())
    ]
