"""The commands that prepare data, once, for the experiments that read it: index and shard."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from orchestrator import storage
from orchestrator.cluster.indexing import index_images
from orchestrator.cluster.session import session
from orchestrator.cluster.sharding import QUARANTINE, shard_input
from orchestrator.config import DataConfig
from orchestrator.data.image_index import describe_index
from orchestrator.data.shards import describe_shards
from orchestrator.data.templates import PathTemplate
from orchestrator.errors import DataError
from orchestrator.experiment_file import load_experiment, validate_experiment
from orchestrator.terminal import guarded, open_console, timed_lines

_MOST_REASONS = 5


def index(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The image folder, a path or URI.")],
    output: Annotated[str, typer.Argument(metavar="OUT.parquet", help="The table to write.")],
    path: Annotated[
        str, typer.Option(metavar="TEMPLATE", help="How paths say what an image is; each name becomes a column.")
    ] = "{subset}/{label}/{name}",
) -> None:
    """List an image folder once, in parallel, into a table that experiments read instead.

    \b
    Examples:
      orchestrator index photos/ photos.parquet
      orchestrator index s3://bucket/photos s3://bucket/photos.parquet --path "{split}/{subset}/{label}/{name}"

    The table has a row an image: path, the names of the template, size, mtime_ns. Files that are no images or do not
    match are listed in a table beside it.
    """
    console = open_console()

    def work() -> None:
        say = timed_lines(console)
        folder_uri, index_uri = storage.absolute(folder).rstrip("/"), storage.absolute(output)
        template = PathTemplate(path)
        with session() as place:
            say(f"index: {folder_uri} on {place}")
            made = index_images(folder_uri, index_uri, template, say=say)
        say(f"index: {made.num_images:,} images to {index_uri}, {made.num_left_out:,} other files")
        if made.num_left_out:
            say(f"index: left out {_show_reasons(made.reasons)}; see {made.left_out_uri}")
        _show_section(console, describe_index(index_uri, folder_uri, template))

    guarded(work)


def shard(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="Images or tables, a path or URI; or an experiment file, for what its section data says."
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", help="The folder of the shards, empty or not there yet.")],
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Rows of the input for each shard.")] = 2000,
    image: Annotated[str | None, typer.Option(help="The column of the images.")] = None,
    image_root: Annotated[
        str | None, typer.Option(metavar="URI", help="What paths in the column of the images are relative to.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of the labels.")] = None,
    subset: Annotated[str | None, typer.Option(help="The column of the subsets.")] = None,
    id: Annotated[str | None, typer.Option(help="The column of the identities.")] = None,
    split: Annotated[str | None, typer.Option(help="The column that says train, val or test.")] = None,
    keep_together: Annotated[
        str | None, typer.Option(help="The column of what must stay on one side of every split.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A further column to keep, as labels of another task; several times for several."),
    ] = None,
    path: Annotated[str | None, typer.Option(metavar="TEMPLATE", help="How paths say what an image is.")] = None,
    format: Annotated[str | None, typer.Option(help="The format of the input; by default told by its files.")] = None,
) -> None:
    """Turn any input into Parquet shards of one size, in parallel.

    \b
    Examples:
      orchestrator shard photos/ shards/ --path "{subset}/{label}/{name}"
      orchestrator shard s3://bucket/raw s3://bucket/shards --image jpg --label species --rows-per-shard 5000
      orchestrator shard experiment.yaml shards/

    A shard has the columns image (the bytes as they are), label, subset, id, split and together; then, under their own
    names, those of data.tasks and diversity.columns of an experiment, and those of --column. Rows that cannot be read
    are in OUT/_quarantine.parquet with the reason. The same command goes on where it was stopped; the same input
    gives the same bytes.
    """
    console = open_console()
    root = None if image_root is None else storage.absolute(image_root)
    columns = {
        "image": image,
        "image_root": root,
        "label": label,
        "subset": subset,
        "id": id,
        "path": path,
        "format": format,
    }
    splits = {"column": split, "keep_together": keep_together}

    def work() -> None:
        say = timed_lines(console)
        config, attributes = _input(source, columns, splits)
        output_uri = storage.absolute(output).rstrip("/")
        with session() as place:
            say(f"shard: {config.uri} on {place}")
            further = [*attributes, *(column or [])]
            made = shard_input(config, output_uri, rows_per_shard, columns=further, say=say)
        say(
            f"shard: {made.num_images:,} images in {len(made.shards):,} shards in {output_uri}, "
            f"{made.num_quarantined:,} rows could not be read"
        )
        if made.num_quarantined:
            reasons = Counter(row.reason for found in made.shards for row in found.quarantined)
            say(f"shard: {_show_reasons(reasons)}; see {storage.join(output_uri, QUARANTINE)}")
        if made.num_images == 0:
            raise DataError("the input must hold a row that can be read", value=f"none in {config.uri}")
        parted = {"label_separator": config.label_separator} if config.is_multi_label else {}
        _show_section(console, describe_shards(output_uri, made.fields, config) | parted)

    guarded(work)


def _input(
    source: str, columns: Mapping[str, str | None], splits: Mapping[str, str | None]
) -> tuple[DataConfig, list[str]]:
    """Read how the input is to be read, from an experiment file or from the options alone; and its attributes' columns.

    Raises ConfigError.
    """
    given = {key: value for key, value in columns.items() if value is not None}
    given_splits = {key: value for key, value in splits.items() if value is not None}
    if source.endswith((".yaml", ".yml")):
        keys = given | {f"split.{key}": value for key, value in given_splits.items()}
        experiment = load_experiment(source, [f"data.{key}={json.dumps(value)}" for key, value in keys.items()])
        return experiment.data, experiment.diversity.columns
    section: dict[str, Any] = {"uri": storage.absolute(source).rstrip("/"), **given, "split": given_splits}
    return validate_experiment({"name": "shard", "data": section}).data, []


def _show_reasons(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda entry: -entry[1])
    shown = "; ".join(f"{count:,} x {reason}" for reason, count in ordered[:_MOST_REASONS])
    return shown + (f"; and {len(ordered) - _MOST_REASONS} other reasons" if len(ordered) > _MOST_REASONS else "")


def _show_section(console: Console, section: Mapping[str, object]) -> None:
    """Print what an experiment file says to read what was made."""
    text = yaml.safe_dump({"data": dict(section)}, sort_keys=False)
    console.print(f"An experiment reads it with\n\n{text}", markup=False, highlight=False, soft_wrap=True)
