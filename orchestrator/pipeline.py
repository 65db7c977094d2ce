"""The order of the stages and how each resumes: the only place that knows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator import storage
from orchestrator.cluster.ingest import IngestPlan, make_catalogue
from orchestrator.cluster.pretraining import prepare_backbone
from orchestrator.cluster.profiling import make_label_profile, make_profile
from orchestrator.cluster.resources import observe_cluster, peak_memory
from orchestrator.cluster.workers import Workbench
from orchestrator.config import ExperimentConfig
from orchestrator.data.multi_label import require_one_label
from orchestrator.data.text_columns import require_attributes
from orchestrator.diversity.grouping import group_subsets
from orchestrator.errors import ConfigError, OrchestratorError, RecordError
from orchestrator.experiment_file import dump_experiment, load_resolved
from orchestrator.records import (
    Assignments,
    BackboneRanking,
    Catalogue,
    Costs,
    Groups,
    PretrainedBackbone,
    Profile,
    Report,
    StageCost,
)
from orchestrator.reporting.findings import copies_finding, grouping_finding
from orchestrator.reporting.pretraining import pretraining_finding
from orchestrator.reporting.pretraining_inputs import cache_finding
from orchestrator.runs import RunDirectory
from orchestrator.stages.assign import assign
from orchestrator.stages.evaluate import evaluate
from orchestrator.stages.explain import explain
from orchestrator.stages.inputs import RunInputs
from orchestrator.stages.ranking import Candidates, rank_backbones
from orchestrator.stages.relations import relate_groups, relate_subsets
from orchestrator.stages.report import report
from orchestrator.stages.search import search
from orchestrator.stages.stage_costs import add_session, result_of
from orchestrator.stages.subset_models import evaluate_subsets, train_subsets
from orchestrator.stages.train import train
from orchestrator.stages.transfer import judge_subsets

STAGES = ("pretrain", "catalogue", "profile", "group", "search", "train", "evaluate", "report")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Say that a stage did something, and count its trials and images where it has any."""

    trials: int = 0
    images: int = 0


class Pipeline:
    """Run stages of one experiment on the connected cluster, each resuming from what the run directory holds."""

    def __init__(self, config: ExperimentConfig, *, say: Say, run_directory: RunDirectory | None = None) -> None:
        """Prepare the run, by default in its own directory; `say` receives a line of words for all that happens."""
        self.config = config
        self.run_directory = RunDirectory.of(config) if run_directory is None else run_directory
        self._say = say
        self._inputs = RunInputs(config, self.run_directory, say=say)

    @classmethod
    def of_run(cls, run_uri: str, *, say: Say) -> Pipeline:
        """Take up a run as its records stand, whatever has become of its data and weights since.

        Raises StorageError where there is no run, and RecordError when it has no catalogue or no backbone.
        """
        directory = RunDirectory(storage.absolute(run_uri))
        pipeline = cls(load_resolved(directory.path("config.yaml")), say=say, run_directory=directory)
        pipeline._inputs.catalogue = directory.require_any("catalogue.json", Catalogue, stage="catalogue")
        pipeline._inputs.backbone = directory.require_any("backbone.json", PretrainedBackbone, stage="pretrain")
        if (source := pipeline._inputs.companion) is not None:
            found = directory.require_any(f"{source.folder}.json", Catalogue, stage="catalogue")
            pipeline._inputs.companion_catalogue = found
        return pipeline

    def assign(self, data_uri: str, *, image_root: str | None = None) -> Assignments:
        """Assign the subsets of data that is like the run's to its groups; no record of the run changes.

        `image_root` takes the place of the run's. Raises RecordError when the run has no groups, or groups of another
        configuration, ConfigError when the run has an image root and the data is given none.
        """
        if image_root is None and self.config.data.image_root is not None:
            raise ConfigError(
                "data of a run with data.image_root must have one of its own", remedy="Name it with --image-root."
            )
        # Its pixels are looked at once: they are not kept.
        data = self._inputs.ingest.data.model_copy(
            update={"uri": data_uri, "image_root": image_root, "max_cache_bytes": 0}
        )
        plan = self._inputs.ingest_plan(data, "assignments", needs_subset=True)
        profile_plan = self._inputs.profile_plan(num_labels=len(self._inputs.catalogue.labels))
        return assign(self._inputs.context, plan, profile_plan, fingerprint=self._inputs.catalogue_fingerprint(plan))

    def run(self, stages: Sequence[str] = STAGES) -> None:
        """Run stages in their order, skipping what is up to date.

        Raises RunLockedError when another run is live here, RecordError when a stage that was not asked for has to
        run first, and whatever error a stage ends with.
        """
        unknown = [stage for stage in stages if stage not in STAGES]
        if unknown:
            raise ConfigError("stages must be known", value=unknown[0], remedy=f"Known: {', '.join(STAGES)}.")
        steps: dict[str, Callable[[], _Work | None]] = {
            "pretrain": self._pretrain,
            "catalogue": self._catalogue,
            "profile": self._profile,
            "group": self._group,
            "search": self._search,
            "train": self._train,
            "evaluate": self._evaluate,
            "report": self._report,
        }
        with self.run_directory.owned():
            storage.write_bytes(self.run_directory.path("config.yaml"), dump_experiment(self.config).encode())
            for stage in self._order:
                if stage in stages:
                    self._timed(stage, steps[stage])

    @property
    def _order(self) -> tuple[str, ...]:
        """Give the stages in their order: weights are learnt from the run's own subsets after the catalogue."""
        if not self.config.learns_own_subsets and not self.config.pretrains_on_target:
            return STAGES
        return ("catalogue", *(stage for stage in STAGES if stage != "catalogue"))

    def rank(self, names: Sequence[str]) -> BackboneRanking:
        """Rank backbones: candidates of the experiment by their titles, or torchvision's by name, default weights.

        Raises ConfigError without a name, RecordError when the catalogue has to be made first.
        """
        require_one_label(self.config.data, "a ranking of backbones")
        if not names:
            raise ConfigError("a ranking must name a backbone", remedy="Write --backbones resnet18,mobilenet_v2.")
        candidates = self._inputs.candidates_named(names)
        with self.run_directory.owned():
            return self._rank(candidates, name="asked")

    def report(self) -> Report:
        """Read the report of a finished run."""
        content = storage.read_bytes(self.run_directory.path("report.json"))
        return Report.from_json(content, source="report.json")

    def profile_labels(self) -> Profile:
        """Measure labels and columns straight from the files: no image is opened, nothing is written."""
        require_one_label(self.config.data, "counting labels straight from the files")
        require_attributes(self._inputs.ingest.data, self.config.diversity.columns)
        profile, bad_rows = make_label_profile(self._inputs.ingest.data, self._inputs.profile_plan(num_labels=0))
        num_rows = sum(subset.num_images for subset in profile.subsets)
        bad = "".join(f"; {count:,} x {reason}" for reason, count in bad_rows.most_common())
        self._say(
            f"profile: {num_rows:,} rows of {len(profile.subsets):,} subsets counted in {profile.seconds:.1f} s; "
            f"{bad_rows.total():,} rows left out{bad}"
        )
        return profile

    def profiled(self) -> Profile:
        """Give the profile, when it is up to date."""
        return self._inputs.profile

    def ranked(self) -> BackboneRanking | None:
        """Give the ranking that chose the run's backbone; None where the experiment names one."""
        if not self.config.backbone.candidates:
            return None
        return self.run_directory.find("rankings/candidates.json", BackboneRanking, self._inputs.backbone_fingerprint)

    def grouped(self) -> tuple[Groups, Profile]:
        """Give the groups and the profile they stand on, when they are up to date."""
        return self._inputs.groups, self._inputs.profile

    def _timed(self, stage: str, step: Callable[[], _Work | None]) -> None:
        """Run a stage and keep its cost; a step gives None when all was up to date."""
        started = time.perf_counter()
        # Known before, for what ends a stage may be that its input cannot be reached.
        result = self._result_of(stage)
        try:
            work = step()
        except BaseException:
            # The next session goes on with what this one has done.
            if result:
                self._keep_interrupted(StageCost(stage=stage, seconds=time.perf_counter() - started, result=result))
            raise
        if work is None:
            self._say(f"{stage}: up to date, skipped")
            self._finish_interrupted(stage, result)
            return
        seconds = time.perf_counter() - started
        self._say(f"{stage}: done in {seconds:.1f} s")
        shape = observe_cluster(elastic=False)
        cost = StageCost(
            stage=stage,
            seconds=seconds,
            trials=work.trials,
            images=work.images,
            cpus=shape.total("CPU"),
            gpus=shape.total("GPU"),
            driver_bytes=peak_memory(),
            result=result,
        )
        self._keep_cost(cost, is_finished=True)

    def _result_of(self, stage: str) -> str:
        """Fingerprint the result that a stage works on; empty where a stage before it has to run first."""
        try:
            return result_of(stage, self._inputs)
        except RecordError:
            return ""

    def _keep_interrupted(self, session: StageCost) -> None:
        # What ended the stage is to be told, and not that this could not be kept.
        with suppress(OrchestratorError):
            self._keep_cost(session, is_finished=False)

    def _finish_interrupted(self, stage: str, result: str) -> None:
        """Count what a session spent that was interrupted when all its records were written."""
        if any((cost.stage, cost.result) == (stage, result) for cost in self._costs().unfinished if result):
            shape = observe_cluster(elastic=False)
            cost = StageCost(stage=stage, seconds=0.0, cpus=shape.total("CPU"), gpus=shape.total("GPU"), result=result)
            self._keep_cost(cost, is_finished=True)

    def _keep_cost(self, session: StageCost, *, is_finished: bool) -> None:
        costs = add_session(self._costs(), session, is_finished=is_finished)
        in_order = sorted(costs.stages, key=lambda cost: STAGES.index(cost.stage))
        self.run_directory.write("costs.json", costs.model_copy(update={"fingerprint": "costs", "stages": in_order}))

    def _costs(self) -> Costs:
        return self.run_directory.find("costs.json", Costs, "costs") or Costs()

    # The stages.

    def _pretrain(self) -> _Work | None:
        if self.config.backbone.candidates:
            return _Work() if self._inputs.candidates.prepare() else None
        fingerprint = self._inputs.backbone_fingerprint
        if self.run_directory.find("backbone.json", PretrainedBackbone, fingerprint):
            return None
        self._say(f"pretrain: {self.config.backbone.name} with weights {self.config.backbone.weights}")
        source = target = None
        if self.config.learns_own_subsets:
            source = self._inputs.catalogue
        elif self._inputs.source is not None:
            source = self._inputs.find_catalogue(self._inputs.source) or self._make_catalogue(self._inputs.source)
        if source is not None and (finding := cache_finding(source)):
            self._say(f"pretrain: {finding}")
        if self.config.pretrains_on_target:
            target = self._inputs.catalogue, self._inputs.reader
        record = prepare_backbone(
            self.config,
            self.run_directory.uri,
            source,
            fingerprint=fingerprint,
            plan=self._inputs.source,
            target=target,
        )
        self.run_directory.write("backbone.json", record)
        self.run_directory.prune("backbone", keep=fingerprint)
        if record.source_accuracy is not None:
            self._say(f"pretrain: validation accuracy {record.source_accuracy:.3f} on the source task")
        if record.pretraining is not None:
            self._say(f"pretrain: {pretraining_finding(record.pretraining)}")
        return _Work()

    def _catalogue(self) -> _Work | None:
        source, record = self._catalogue_source(), self._catalogue_own()
        if record is None:
            return source
        images = record.num_images + record.num_quarantined + record.num_copies_left_out
        return _Work(images=images + (0 if source is None else source.images))

    def _catalogue_own(self) -> Catalogue | None:
        """Catalogue the run's own data; None where it is up to date."""
        if self._inputs.find_catalogue(self._inputs.ingest):
            return None
        require_attributes(self._inputs.ingest.data, self.config.data.tasks, key="data.tasks")
        # The profile would say so too, but only after every image was opened.
        require_attributes(self._inputs.ingest.data, self.config.diversity.columns)
        record = self._make_catalogue(self._inputs.ingest)
        bad = "".join(f"; {count} x {reason}" for reason, count in record.quarantine_reasons.items())
        self._say(
            f"catalogue: {record.num_images:,} images, {len(record.labels)} labels, {len(record.subsets)} subsets; "
            f"{record.num_cached:,} cached as pixels; {record.num_quarantined:,} rows quarantined{bad}"
        )
        if finding := copies_finding(record):
            self._say(f"catalogue: {finding}")
        return record

    def _catalogue_source(self) -> _Work | None:
        """Catalogue what groups are trained together with, where there is something that is not up to date."""
        plan = self._inputs.companion
        if plan is None or self._inputs.find_catalogue(plan):
            return None
        record = self._make_catalogue(plan)
        self._say(f"source: {record.num_images:,} images, {record.num_cached:,} cached as pixels")
        return _Work(images=record.num_images + record.num_quarantined + record.num_copies_left_out)

    def _make_catalogue(self, plan: IngestPlan) -> Catalogue:
        fingerprint = self._inputs.catalogue_fingerprint(plan)
        self._say(f"{plan.folder}: reading {plan.data.uri}")
        record = make_catalogue(plan, fingerprint=fingerprint, say=self._say)
        self.run_directory.write(f"{plan.folder}.json", record)
        self.run_directory.prune(plan.folder, keep=fingerprint)
        return record

    def _choose_backbone(self) -> bool:
        """Make the best of the candidates the run's backbone; it can only be told once there are images."""
        fingerprint = self._inputs.backbone_fingerprint
        if self.run_directory.find("backbone.json", PretrainedBackbone, fingerprint):
            return False
        ranking = self._rank(self._inputs.candidates, name="candidates")
        chosen = self._inputs.candidates.backbone(ranking.chosen)
        self.run_directory.write("backbone.json", chosen.model_copy(update={"fingerprint": fingerprint}))
        self._say(f"backbone: {ranking.chosen} is taken")
        return True

    def _rank(self, candidates: Candidates, *, name: str) -> BackboneRanking:
        ranking = rank_backbones(
            candidates, self._inputs.catalogue, self._inputs.samples, self._inputs.reader, name=name
        )
        candidates.forget_others(keep=self._inputs.candidates.fingerprints.values())
        return ranking

    def _profile(self) -> _Work | None:
        is_chosen = bool(self.config.backbone.candidates) and self._choose_backbone()
        profile = self._measure_diversity()
        is_compared = self._inputs.measures_features and relate_subsets(self._inputs)
        if profile is not None:
            return _Work(images=sum(found.num_images for found in profile.subsets))
        return _Work() if is_chosen or is_compared else None

    def _measure_diversity(self) -> Profile | None:
        inputs = self._inputs
        if self.run_directory.find("profile.json", Profile, inputs.profile_fingerprint):
            return None
        require_attributes(inputs.ingest.data, self.config.diversity.columns)
        plan = inputs.profile_plan(num_labels=len(inputs.catalogue.labels))
        workbench = None
        if inputs.measures_features:
            workbench = Workbench.of(self.config, inputs.backbone, self.run_directory.uri)
        fingerprint, means = inputs.profile_fingerprint, None
        # An image of any number of labels is of no class whose mean it could be part of.
        if inputs.measures_features and not inputs.samples.multi_label:
            means = f"profile/class_means/{fingerprint}.parquet"
            plan = replace(plan, class_means_uri=self.run_directory.path(means))
        record = make_profile(inputs.samples, inputs.reader, workbench, plan, fingerprint=fingerprint, say=self._say)
        self.run_directory.write("profile.json", record.model_copy(update={"class_means": means}))
        self.run_directory.prune("profile/class_means", keep=fingerprint)
        self._say(f"profile: {', '.join(plan.settings.measures)} of {len(record.subsets)} subsets over {record.split}")
        return record

    def _group(self) -> _Work | None:
        is_grouped = self._group_subsets()
        is_compared = self._inputs.measures_features and relate_groups(self._inputs)
        return _Work() if is_grouped or is_compared else None

    def _group_subsets(self) -> bool:
        if self.run_directory.find("groups.json", Groups, self._inputs.groups_fingerprint):
            return False
        groups = group_subsets(self._inputs.profile, self.config.grouping, self.config.grouping_measures)
        record = groups.model_copy(update={"fingerprint": self._inputs.groups_fingerprint})
        self.run_directory.write("groups.json", record)
        for group in record.groups:
            low, high = group.score_range
            self._say(
                f"group {group.name}: {len(group.subsets)} subsets, {group.num_images:,} images, "
                f"{record.measures[0]} {low:.3f} to {high:.3f}"
            )
        if finding := grouping_finding(record):
            self._say(f"group: {finding}")
        return True

    def _search(self) -> _Work | None:
        num_trials = search(self._inputs.context)
        return _Work(trials=num_trials) if num_trials else None

    def _train(self) -> _Work | None:
        num_models, num_of_subsets = train(self._inputs.context), train_subsets(self._inputs.context)
        return _Work() if num_models or num_of_subsets else None

    def _evaluate(self) -> _Work | None:
        context = self._inputs.context
        done = [step(context) for step in (evaluate, evaluate_subsets, explain, judge_subsets)]
        return _Work() if any(done) else None

    def _report(self) -> _Work | None:
        report(self._inputs, costs=self._costs().stages, chosen=self.ranked())
        return _Work()
