"""The command line; thin: it reads arguments, runs stages and prints what they say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import RenderableType

from orchestrator import storage
from orchestrator.cli_data import index, shard
from orchestrator.cluster.corrected_inference import predict_and_correct
from orchestrator.cluster.head_choice import HeadChoice
from orchestrator.cluster.inference import predict_with_model
from orchestrator.cluster.session import session
from orchestrator.config import InputFormat
from orchestrator.errors import DataError
from orchestrator.experiment_file import load_experiment
from orchestrator.pipeline import STAGES, Pipeline
from orchestrator.reporting.findings import assignment_notes
from orchestrator.reporting.investment_findings import investment_summary
from orchestrator.reporting.tables import (
    assignments_table,
    frequencies_table,
    groups_table,
    profile_table,
    ranking_table,
    summary_table,
)
from orchestrator.terminal import guarded, open_console, timed_lines

Experiment = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the experiment file, for example search.num_samples=20.",
    ),
]

app = typer.Typer(
    name="orchestrator",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Fine-tune image classifiers for many labelled subsets, guided by how diverse each subset is.\n\n"
        "\b\nThe whole way on the embedded demo:\n"
        "  orchestrator run jobs/experiments/demo.yaml\n\n"
        "\b\nYour own Parquet shards, with a bound on the search:\n"
        "  orchestrator run experiment.yaml --set data.uri=s3://bucket/x --set search.budget.time_budget_s=3600\n\n"
        "\b\nOn a cluster:\n"
        "  ray job submit --working-dir . -- python jobs/run.py jobs/experiments/demo.yaml\n\n"
        "Every command joins the Ray cluster that RAY_ADDRESS names, or starts a local one. The same command again "
        "resumes at the first stage whose inputs changed."
    ),
)


@app.command()
def run(
    experiment: Experiment,
    overrides: Overrides = None,
    stages: Annotated[
        str | None, typer.Option(help=f"Only these stages, separated by commas, of: {', '.join(STAGES)}.")
    ] = None,
) -> None:
    """Run every stage, from the images to the report.

    \b
    Examples:
      orchestrator run jobs/experiments/demo.yaml
      orchestrator run jobs/experiments/pacs.yaml --set data.uri=/data/pacs --set search.num_samples=20
      orchestrator run experiment.yaml --stages catalogue,profile,group
    """
    _run_stages(experiment, overrides, STAGES if stages is None else stages.split(","))


@app.command()
def profile(
    experiment: Experiment,
    overrides: Overrides = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Count labels straight from the files; write nothing.")
    ] = False,
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Rank these instead, separated by commas: titles of candidates, or torchvision names."
        ),
    ] = None,
) -> None:
    """Measure the diversity of every subset, or rank backbones by how well they part its classes.

    \b
    Examples:
      orchestrator profile jobs/experiments/demo.yaml
      orchestrator profile experiment.yaml --labels-only
      orchestrator profile experiment.yaml --backbones resnet18,mobilenet_v2,convnext_tiny

    The stages before it must have run: `orchestrator run` runs them all. A ranking needs the catalogue alone. With
    --labels-only nothing has to: the columns of labels and subsets, and those that diversity.columns names, are counted
    over all splits, and no image is opened.
    """
    if labels_only and backbones is not None:
        raise typer.BadParameter("--labels-only opens no image, --backbones needs them: leave one out")
    if labels_only:
        _on_cluster(experiment, overrides, lambda pipeline: [profile_table(pipeline.profile_labels())])
    elif backbones is not None:
        names = list(dict.fromkeys(name.strip() for name in backbones.split(",") if name.strip()))
        _on_cluster(experiment, overrides, lambda pipeline: [ranking_table(pipeline.rank(names))])
    else:
        _run_stages(experiment, overrides, ["profile"])


def _stage_command(stage: str, summary: str) -> None:
    def command(experiment: Experiment, overrides: Overrides = None) -> None:
        _run_stages(experiment, overrides, [stage])

    command.__doc__ = (
        f"{summary}\n\n\b\nExample:\n  orchestrator {stage} jobs/experiments/demo.yaml\n\n"
        "The stages before it must have run: `orchestrator run` runs them all."
    )
    app.command(stage)(command)


def _add_stage_commands() -> None:
    summaries = {
        "pretrain": "Load the pretrained weights, or train the source task that makes them.",
        "catalogue": "List, verify and split every sample, and cache its pixels.",
        "group": "Put subsets of like diversity together.",
        "search": "Search freeze depth, learning rate and epochs for every group.",
        "train": "Train the winner of every group, across workers.",
        "evaluate": "Test every model beside its baselines.",
        "report": "Write report.html and report.json.",
    }
    for stage, summary in summaries.items():
        _stage_command(stage, summary)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained model: RUN/groups/GROUP/model.")],
    input_uri: Annotated[str, typer.Argument(metavar="INPUT_URI", help="Images, tables, or tar shards.")],
    output: Annotated[str, typer.Option(metavar="URI", help="Where the Parquet files of predictions go.")],
    image: Annotated[str, typer.Option(help="The column of the images in a table, or their entry in a tar.")] = "image",
    format: Annotated[InputFormat, typer.Option(help="The format of the input; auto goes by suffixes.")] = "auto",
    use_gpu: Annotated[
        bool | None, typer.Option("--use-gpu/--no-use-gpu", help="Default: where the cluster has a GPU.")
    ] = None,
    label_shift: Annotated[
        Literal["none", "confusion", "em"],
        typer.Option(help="Estimate how frequent classes are among all the images, and correct for that."),
    ] = "none",
    subset: Annotated[
        str | None,
        typer.Option(help="The model's subset that the images are of: with --label-shift, or to choose its head."),
    ] = None,
    subset_column: Annotated[
        str | None, typer.Option(help="The column of a table, or the field of a tar, that names each image's head.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="Where paths name each image's head: {subset}/{name}."),
    ] = None,
) -> None:
    """Predict the class of every image below a path or URI.

    \b
    Examples:
      orchestrator predict ~/ray_results/demo/groups/low/model photos/ --output predictions
      orchestrator predict RUN/groups/high/model s3://bucket/new --output s3://bucket/predictions --image picture
      orchestrator predict RUN/groups/high/model new/ --output predictions --label-shift em
      orchestrator predict RUN/groups/high/model new.parquet --output predictions --subset-column camera

    The output has a row an image: file, row, label, a probability for each class, and error where there is none.
    With --label-shift also corrected_label and corrected probabilities; the frequencies are in _label_shift.json,
    which is written last.
    """
    if label_shift != "none" and (subset_column is not None or path is not None):
        raise typer.BadParameter("--subset-column and --path choose heads, which --label-shift cannot: leave them out")
    head = HeadChoice(subset=subset, column=subset_column, path=path)
    console = open_console()

    def work() -> None:
        with session() as place:
            console.print(f"predict: on {place}")
            frequencies = None
            if label_shift == "none":
                predicted, bad = predict_with_model(
                    model, input_uri, output, image_column=image, format=format, use_gpu=use_gpu, head=head
                )
            else:
                predicted, bad, frequencies = predict_and_correct(
                    model,
                    input_uri,
                    output,
                    method=label_shift,
                    subset=subset,
                    image_column=image,
                    format=format,
                    use_gpu=use_gpu,
                )
        if frequencies is not None:
            console.print(frequencies_table(frequencies))
            for task in frequencies.tasks:
                console.print(frequencies_table(task))
        console.print(f"predict: {predicted:,} images to {output}, {bad:,} could not be read")
        if predicted == 0:
            raise DataError("an image must be readable to be predicted", value=f"{bad:,} that are not in {input_uri}")

    guarded(work)


app.command()(index)
app.command()(shard)


@app.command()
def assign(
    run_uri: Annotated[str, typer.Argument(metavar="RUN", help="A run's directory: <storage_path>/<name>.")],
    data_uri: Annotated[str, typer.Argument(metavar="DATA_URI", help="Labelled images, laid out as the run's data.")],
    image_root: Annotated[
        str | None, typer.Option(metavar="URI", help="What paths in the column of the images are relative to.")
    ] = None,
) -> None:
    """Say which group of a finished run serves subsets that have arrived since.

    \b
    Examples:
      orchestrator assign ~/ray_results/cameras s3://bucket/new-cameras
      orchestrator assign RUN photos/site-25

    The subsets are measured as the run's were, and fall into its groups by the borders or centres that formed them:
    nothing is searched or trained, and no record of the run changes. The result is in RUN/assignments/.
    """
    console = open_console()

    def work() -> None:
        pipeline = Pipeline.of_run(run_uri, say=timed_lines(console))
        with session() as place:
            console.print(f"assign: on {place}")
            root = None if image_root is None else storage.absolute(image_root)
            found = pipeline.assign(storage.absolute(data_uri), image_root=root)
        console.print(assignments_table(found))
        for note in assignment_notes(found):
            console.print(note, markup=False, highlight=False, soft_wrap=True)

    guarded(work)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code: 0 only when everything that was asked for was done."""
    if not any(command.name == STAGES[0] for command in app.registered_commands):
        _add_stage_commands()
    try:
        app(args=None if argv is None else list(argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _run_stages(experiment: Path, overrides: list[str] | None, stages: Sequence[str]) -> None:
    def work(pipeline: Pipeline) -> list[RenderableType]:
        pipeline.run(stages)
        return _shown(pipeline, stages)

    _on_cluster(experiment, overrides, work)


def _on_cluster(
    experiment: Path, overrides: list[str] | None, work: Callable[[Pipeline], Sequence[RenderableType]]
) -> None:
    """Do some work of an experiment on the cluster, telling what happens and when, and print what that gives."""
    console = open_console()
    say = timed_lines(console)

    def session_work() -> None:
        config = load_experiment(experiment, overrides or [])
        pipeline = Pipeline(config, say=say)
        say(f"run {config.name} in {pipeline.run_directory.uri}")
        with session() as place:
            say(f"on {place}")
            shown = work(pipeline)
        for part in shown:
            console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)

    guarded(session_work)


def _shown(pipeline: Pipeline, stages: Sequence[str]) -> list[RenderableType]:
    """Give what the last of the stages found."""
    if "report" in stages:
        path = pipeline.run_directory.path("report.html")
        report = pipeline.report()
        return [summary_table(report), *filter(None, [investment_summary(report)]), f"Report: {path}"]
    if "group" in stages:
        return [groups_table(*pipeline.grouped())]
    if "profile" in stages:
        chosen = pipeline.ranked()
        return [*([] if chosen is None else [ranking_table(chosen)]), profile_table(pipeline.profiled())]
    return []


def entry() -> None:
    """Run the command line as a console script."""
    sys.exit(main())
