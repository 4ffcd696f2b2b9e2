"""Responses as flat rows, as tables of pandas or polars, and as flat numbers for experiment trackers."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

__all__ = ["frame", "rows", "summary"]

Row = Dict[str, Any]
_LISTS = ("rows", "items", "runs", "methods", "datasets", "slices", "points", "scores")


def rows(document: Union[Mapping[str, Any], Sequence[Mapping[str, Any]]]) -> List[Row]:
    """Returns a response as flat rows.

    * a leaderboard: a row for each method or run, with ``clip_t``, ``clip_t.low`` and so on as columns
    * a comparison: a row for each slice and metric
    * a report, a list of runs or samples, any other list: a row for each entry
    * a score, or a stored sample: a row for each metric
    * rewards: a row for each item
    """
    if not isinstance(document, Mapping):
        return [_flat(each) for each in document]
    if "rewards" in document and isinstance(document["rewards"], Mapping):
        return _of_rewards(document)
    scores = document.get("scores")
    if isinstance(scores, Mapping):
        return [{"metric": code, **_flat(entry)} for code, entry in scores.items()]
    for key, entries in document.items():
        # An empty list can be one of words, so its name decides.
        if (
            isinstance(entries, list)
            and (entries or key in _LISTS)
            and all(isinstance(each, Mapping) for each in entries)
        ):
            return [_flat(row) for entry in entries for row in _expanded(entry)]
    return [_flat(document)]


def _of_rewards(document: Mapping[str, Any]) -> List[Row]:
    columns: Dict[str, Sequence[Any]] = dict(document["rewards"])
    if document.get("combined") is not None:
        columns["combined"] = document["combined"]
    length = max((len(column) for column in columns.values()), default=0)
    return [{name: column[at] for name, column in columns.items()} for at in range(length)]


def _expanded(entry: Mapping[str, Any]) -> List[Row]:
    """Expands the metrics of an entry.

    Those of the leaderboard become columns, with the mean under the code; those of a comparison become rows.
    """
    metrics = entry.get("metrics")
    rest = {key: value for key, value in entry.items() if key != "metrics"}
    if isinstance(metrics, list) and metrics and all(isinstance(each, Mapping) for each in metrics):
        return [{**rest, **each} for each in metrics]
    if not isinstance(metrics, Mapping):
        return [dict(entry)]
    for code, numbers in metrics.items():
        if isinstance(numbers, Mapping):
            rest[code] = numbers.get("mean")
            rest.update({f"{code}.{key}": value for key, value in numbers.items() if key != "mean"})
        else:
            rest[code] = numbers
    return [rest]


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value):
            flat[prefix + key] = ", ".join(map(str, value))
        else:
            flat[prefix + key] = value
    return flat


def frame(document: Union[Mapping[str, Any], Sequence[Mapping[str, Any]]], library: Optional[str] = None) -> Any:
    """Returns the rows of a response as a DataFrame of ``pandas`` or ``polars``: the first that is installed."""
    if library not in (None, "pandas", "polars"):
        raise ValueError(f"{library!r} is neither 'pandas' nor 'polars'")
    table = rows(document)
    if library in (None, "pandas"):
        try:
            import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            if library:
                raise
        else:
            return pandas.DataFrame(table)
    try:
        import polars  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        if library:
            raise
        raise ImportError("a table needs pandas or polars: install one of them, or use rows()") from None
    # Rows may lack columns, and a column may be null in the first rows.
    return polars.DataFrame(table, infer_schema_length=None)


def summary(document: Mapping[str, Any], prefix: str = "") -> Dict[str, float]:
    """Returns the numbers of a response as a flat dictionary, which W&B, MLflow, TensorBoard and trackio take.

    Metrics without a number are left out, and the ``@`` of a reward's name becomes a period.

    * a score: ``clip_t``
    * a report: ``clip_t``, ``clip_t/low``, ``clip_t/high``, ``clip_t/n``
    * rewards: the mean and the standard deviation of each, over the items that have one
    """
    flat: Dict[str, float] = {}

    def put(name: str, value: Any) -> None:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # MLflow takes no @ in a name.
            flat[prefix + name.replace("@", ".")] = float(value)

    columns = document.get("rewards")
    scores = document.get("scores")
    if isinstance(columns, Mapping):
        extra = {"combined": document["combined"]} if document.get("combined") is not None else {}
        for name, column in {**columns, **extra}.items():
            numbers = [value for value in column if value is not None]
            if numbers:
                mean = sum(numbers) / len(numbers)
                put(name, mean)
                put(f"{name}/std", (sum((value - mean) ** 2 for value in numbers) / len(numbers)) ** 0.5)
            put(f"{name}/n", len(numbers))
    elif isinstance(scores, Mapping):
        for code, entry in scores.items():
            put(code, entry.get("value"))
    elif isinstance(document.get("rows"), list) and all("metric" in row for row in document["rows"]):
        for row in document["rows"]:
            if row.get("mean") is None:
                continue
            put(row["metric"], row["mean"])
            for key in ("low", "high", "n"):
                put(f"{row['metric']}/{key}", row.get(key))
    else:
        raise TypeError("a summary is that of a score, a report or rewards")
    return flat
