"""Tables whose rows are read, checked and brought into the schema while somebody asks for them."""

import logging
from typing import TYPE_CHECKING

import datasets

from fer_hf.data.sources_rows import split_name
from fer_hf.data.sources_store import SourceReport, examples, features_of
from fer_hf.data.sources_tables import TableReader, Tables, table_reader, undecoded

if TYPE_CHECKING:
    from fer_hf.data.sources import SourceOptions

logger = logging.getLogger(__name__)
_ROWS_AT_A_TIME = 64


def stream_tables(tables: Tables, options: "SourceOptions") -> datasets.IterableDatasetDict:
    """A stream a split in the one schema; rows that cannot be read are logged and passed by."""
    reader, _ = table_reader(tables, options)
    if "split" in reader.columns:
        raise ValueError(
            f"the column {reader.columns['split']} says of each row which split it belongs to, which a stream of one "
            "split cannot follow: read it without streaming"
        )
    features = features_of(
        options.classes, reader.votes is not None or "votes" in reader.columns, "subject" in reader.columns
    )
    streams = {}
    for name, table in tables.items():
        split = split_name(name) or name
        if split in streams:
            raise ValueError(
                f"two of {', '.join(tables)} mean {split}, which a stream cannot join: read it without streaming"
            )
        rows = undecoded(table, reader).map(
            _Conform(split, reader, features, options),
            with_indices=True,
            batched=True,
            batch_size=_ROWS_AT_A_TIME,
            remove_columns=list(reader.columns.values()),
        )
        streams[split] = rows.cast(features)  # told to map(), the features would leave pictures undecoded
    return datasets.IterableDatasetDict(streams)


class _Conform:
    """A batch of a table's columns, and the rows' numbers, to a batch of ours."""

    def __init__(self, split: str, reader: TableReader, features: datasets.Features, options: "SourceOptions"):
        self.split, self.reader, self.features, self.options = split, reader, features, options

    def __call__(self, batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        rows = [
            self.reader.row(dict(zip(batch, values, strict=True)), self.split, index)
            for values, index in zip(zip(*batch.values(), strict=True), indices, strict=True)
        ]
        report = SourceReport("tables")
        kept = [columns for _, columns in examples(rows, self.features, self.options, report)]
        for row in report.skipped:
            logger.warning("%s was passed by: %s", row.row_id, row.reason)
        return {name: [columns[name] for columns in kept] for name in self.features}
