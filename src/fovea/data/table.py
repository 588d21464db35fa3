"""Tables: CSV with any of the usual separators, and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fovea.data.types import Picture
from fovea.errors import ConfigError, DataError

_SEPARATORS = ",;\t|"
_LARGEST = 1 << 24  # characters in a cell


@dataclass(frozen=True)
class Table:
    """A table as texts; an empty cell and a missing value are the empty text."""

    where: str  # the file, for messages
    columns: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # with their numbers: the line of a CSV file, the row of Parquet from 1


def read_table(file: Picture) -> Table:
    """Read CSV (UTF-8; separated by comma, semicolon, tab or bar) or Parquet, by the file's name. Raises DataError."""
    where = str(file)
    if where.lower().endswith(".parquet"):
        return _parquet(file, where)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: {error.strerror or error}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where} is UTF-16 text: save it as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where} is no UTF-8 text (row {line}): save it as CSV in UTF-8") from None
    if "\0" in text:
        raise DataError(f"{where} is no text: a manifest is CSV or Parquet")
    try:
        rows = list(_csv_rows(text))
    except csv.Error as error:
        raise DataError(f"{where} is no CSV that can be read ({error})") from None
    if not rows:
        raise DataError(f"{where} is empty: its first row names the columns, for instance path,label")
    return Table(where, rows[0][1], rows[1:])


def _csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    first = text.lstrip("\r\n").partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)  # the first of them where a header has none
    csv.field_size_limit(_LARGEST)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _parquet(file: Picture, where: str) -> Table:
    parquet = import_parquet(where)
    try:
        read = parquet.read_table(file if isinstance(file, Path) else io.BytesIO(file.read_bytes()))
    except OSError as error:  # pyarrow's own errors are among them, or ValueErrors
        raise DataError(f"{where} cannot be read as Parquet ({one_line(error)})") from None
    except ValueError as error:
        raise DataError(f"{where} cannot be read as Parquet ({one_line(error)})") from None
    columns = [[_text(value) for value in column.to_pylist()] for column in read.columns]
    return Table(where, list(read.column_names), list(enumerate(zip(*columns, strict=True), start=1)))


def import_parquet(where: str) -> Any:
    """pyarrow.parquet. Raises ConfigError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f'{where} is Parquet, which needs pyarrow: pip install "fovea[parquet]", or save it as CSV'
        ) from None
    return pyarrow.parquet


def _text(value: Any) -> str:
    """What a person would write: a whole number without its `.0`, which a column with gaps gives it."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def one_line(error: Exception) -> str:
    """What a library's error says, without its line breaks."""
    return " ".join(str(error).split())[:200]
