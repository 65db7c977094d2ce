"""The order of the stages and how each resumes: the only place that knows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from orchestrator import fingerprints, storage
from orchestrator.cluster.ingest import (
    CATALOGUE_VERSION,
    IngestPlan,
    make_catalogue,
    pixel_reader,
    read_samples,
)
from orchestrator.cluster.pretraining import prepare_backbone
from orchestrator.cluster.profiling import PROFILE_VERSION, ProfilePlan, make_label_profile, make_profile
from orchestrator.cluster.resources import observe_cluster, peak_memory
from orchestrator.cluster.workers import Workbench
from orchestrator.config import BackboneConfig, DataConfig, ExperimentConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.data.sources import listing_digest
from orchestrator.data.text_columns import require_attributes
from orchestrator.demo import resolve_demo
from orchestrator.diversity.grouping import GROUPING_VERSION, group_subsets
from orchestrator.diversity.profiling import ProfileSettings
from orchestrator.errors import ConfigError
from orchestrator.evaluation.comparisons import pool
from orchestrator.experiment_file import dump_experiment, load_resolved
from orchestrator.records import (
    Assignments,
    BackboneRanking,
    Catalogue,
    Costs,
    Distances,
    Groups,
    PretrainedBackbone,
    Profile,
    Report,
    StageCost,
)
from orchestrator.reporting.findings import copies_finding, grouping_finding
from orchestrator.reporting.html import render_html
from orchestrator.runs import RunDirectory
from orchestrator.stages.assign import assign
from orchestrator.stages.context import GroupContext
from orchestrator.stages.distances import DISTANCES_VERSION, LabelledImages, distances_of
from orchestrator.stages.evaluate import evaluate, read_evaluations, read_predictions
from orchestrator.stages.ranking import Candidates, backbone_fingerprint, rank_backbones
from orchestrator.stages.search import read_searches, search
from orchestrator.stages.shared_inputs import read_costs
from orchestrator.stages.train import read_models, train

STAGES = ("pretrain", "catalogue", "profile", "group", "search", "train", "evaluate", "report")

Say = Callable[[str], None]


class Pipeline:
    """Run stages of one experiment on the connected cluster, each resuming from what the run directory holds."""

    def __init__(self, config: ExperimentConfig, *, say: Say) -> None:
        """Prepare the run; `say` receives a line of plain words for everything that happens."""
        self.config = config
        self.run_directory = RunDirectory.of(config)
        self._say = say
        self._listings: dict[str, str] = {}

    @classmethod
    def of_run(cls, run_uri: str, *, say: Say) -> Pipeline:
        """Take up a run as its records stand, whatever has become of its data and weights since.

        Raises StorageError where there is no run, and RecordError when it has no catalogue or no backbone.
        """
        directory = RunDirectory(storage.absolute(run_uri))
        pipeline = cls(load_resolved(directory.path("config.yaml")), say=say)
        pipeline.run_directory = directory
        pipeline._catalogue_record = directory.require_any("catalogue.json", Catalogue, stage="catalogue")
        pipeline._backbone_record = directory.require_any("backbone.json", PretrainedBackbone, stage="pretrain")
        return pipeline

    def assign(self, data_uri: str) -> Assignments:
        """Assign the subsets of data that is like the run's to its groups; no record of the run changes.

        Raises RecordError when the run has no groups, or groups of another configuration.
        """
        # Its pixels are looked at once: they are not kept.
        data = self._ingest.data.model_copy(update={"uri": data_uri, "max_cache_bytes": 0})
        plan = self._ingest_plan(data, "assignments", needs_subset=True)
        profile_plan = self._profile_plan(num_labels=len(self._catalogue_record.labels))
        return assign(self._groups_context, plan, profile_plan, fingerprint=self._catalogue_fingerprint(plan))

    def run(self, stages: Sequence[str] = STAGES) -> None:
        """Run stages in their order, skipping what is up to date.

        Raises RunLockedError when another run is live here, RecordError when a stage that was not asked for has to
        run first, and whatever error a stage ends with.
        """
        unknown = [stage for stage in stages if stage not in STAGES]
        if unknown:
            raise ConfigError("stages must be known", value=unknown[0], remedy=f"Known: {', '.join(STAGES)}.")
        steps: dict[str, Callable[[], int]] = {
            "pretrain": self._pretrain,
            "catalogue": self._catalogue,
            "profile": self._profile,
            "group": self._group,
            "search": lambda: search(self._groups_context),
            "train": lambda: train(self._groups_context),
            "evaluate": lambda: evaluate(self._groups_context),
            "report": self._report,
        }
        with self.run_directory.owned():
            storage.write_bytes(self.run_directory.path("config.yaml"), dump_experiment(self.config).encode())
            for stage in STAGES:
                if stage in stages:
                    self._timed(stage, steps[stage])

    def rank(self, names: Sequence[str]) -> BackboneRanking:
        """Rank backbones: candidates of the experiment by their titles, or torchvision's by name, default weights.

        Raises ConfigError without a name, RecordError when the catalogue has to be made first.
        """
        if not names:
            raise ConfigError("a ranking must name a backbone", remedy="Write --backbones resnet18,mobilenet_v2.")
        asked = {name: self._named(name) for name in names}
        with self.run_directory.owned():
            return self._rank(self._candidates_of(asked), name="asked")

    def report(self) -> Report:
        """Read the report of a finished run."""
        content = storage.read_bytes(self.run_directory.path("report.json"))
        return Report.from_json(content, source="report.json")

    def profile_labels(self) -> Profile:
        """Measure labels and columns straight from the files: no image is opened, nothing is written."""
        require_attributes(self._ingest.data, self.config.diversity.columns)
        profile, bad_rows = make_label_profile(self._ingest.data, self._profile_plan(num_labels=0))
        num_rows = sum(subset.num_images for subset in profile.subsets)
        bad = "".join(f"; {count:,} x {reason}" for reason, count in bad_rows.most_common())
        self._say(
            f"profile: {num_rows:,} rows of {len(profile.subsets):,} subsets counted in {profile.seconds:.1f} s; "
            f"{bad_rows.total():,} rows left out{bad}"
        )
        return profile

    def profiled(self) -> Profile:
        """Give the profile, when it is up to date."""
        return self._profile_record

    def ranked(self) -> BackboneRanking | None:
        """Give the ranking that chose the run's backbone; None where the experiment names one."""
        if not self.config.backbone.candidates:
            return None
        return self.run_directory.find("rankings/candidates.json", BackboneRanking, self._backbone_fingerprint)

    def grouped(self) -> tuple[Groups, Profile]:
        """Give the groups and the profile they stand on, when they are up to date."""
        return self._groups_record, self._profile_record

    def _timed(self, stage: str, step: Callable[[], int]) -> None:
        """Run a stage and keep its cost; a step says how many units it did, 0 when all was up to date.

        Units are trials, images, or whatever a stage does several of.
        """
        started = time.perf_counter()
        done = step()
        if not done:
            self._say(f"{stage}: up to date, skipped")
            return
        seconds = time.perf_counter() - started
        self._say(f"{stage}: done in {seconds:.1f} s")
        kept = [cost for cost in self._costs().stages if cost.stage != stage]
        shape = observe_cluster(elastic=False)
        cost = StageCost(
            stage=stage,
            seconds=seconds,
            trials=done if stage == "search" else 0,
            images=done if stage in ("catalogue", "profile") else 0,
            cpus=shape.total("CPU"),
            gpus=shape.total("GPU"),
            driver_bytes=peak_memory(),
        )
        costs = [*kept, cost]
        costs.sort(key=lambda cost: STAGES.index(cost.stage))
        self.run_directory.write("costs.json", Costs(fingerprint="costs", stages=costs))

    def _costs(self) -> Costs:
        return self.run_directory.find("costs.json", Costs, "costs") or Costs()

    # The inputs of stages: each is found in the run directory, or the stage that makes it must run first.

    @cached_property
    def _ingest(self) -> IngestPlan:
        return self._ingest_plan(self.config.data, "catalogue", needs_subset=True)

    @cached_property
    def _source(self) -> IngestPlan | None:
        """The source task's plan; None when the weights come from elsewhere."""
        if self.config.backbone.weights != "pretrain" or self.config.pretrain is None:
            return None
        return self._ingest_plan(self.config.pretrain.data, "pretrain/catalogue", needs_subset=False)

    def _ingest_plan(self, data: DataConfig, folder: str, *, needs_subset: bool) -> IngestPlan:
        return IngestPlan(
            data=resolve_demo(data, self.run_directory.path("demo")),
            image_size=self.config.backbone.image_size,
            resize=self.config.backbone.resize,
            seed=self.config.seed,
            run_uri=self.run_directory.uri,
            folder=folder,
            needs_subset=needs_subset,
            stall_timeout_s=self.config.cluster.stall_timeout_s,
        )

    def _catalogue_fingerprint(self, plan: IngestPlan) -> str:
        # The input is listed once a run: what arrives meanwhile is for the next one.
        if plan.folder not in self._listings:
            self._listings[plan.folder] = listing_digest(plan.data)
        return fingerprints.of_catalogue(
            self.config, plan.data, listing=self._listings[plan.folder], version=CATALOGUE_VERSION
        )

    @cached_property
    def _candidates(self) -> Candidates:
        return self._candidates_of(self.config.backbone.by_title)

    def _candidates_of(self, networks: Mapping[str, BackboneConfig]) -> Candidates:
        return Candidates(config=self.config, run_directory=self.run_directory, networks=networks, say=self._say)

    def _named(self, name: str) -> BackboneConfig:
        """Give the experiment's network of this title, else torchvision's with its default weights, on its pixels."""
        own = self.config.backbone
        network = own.by_title.get(name, BackboneConfig(name=name, image_size=own.image_size, resize=own.resize))
        if network.weights != "pretrain":
            return network
        return network.model_copy(update={"weights": self.run_directory.path(self._backbone_record.weights)})

    @cached_property
    def _backbone_fingerprint(self) -> str:
        if self.config.backbone.candidates:
            return self._candidates.ranking_fingerprint(self._catalogue_record.data_fingerprint)
        listing = "" if self._source is None else self._catalogue_fingerprint(self._source)
        return backbone_fingerprint(self.config, listing)

    @cached_property
    def _catalogue_record(self) -> Catalogue:
        fingerprint = self._catalogue_fingerprint(self._ingest)
        return self.run_directory.require("catalogue.json", Catalogue, fingerprint, stage="catalogue")

    @cached_property
    def _samples(self) -> SampleTable:
        return read_samples(self.run_directory.uri, self._catalogue_record)

    @cached_property
    def _reader(self) -> PixelReader:
        return pixel_reader(self._ingest, self._catalogue_record)

    @cached_property
    def _backbone_record(self) -> PretrainedBackbone:
        stage = "profile" if self.config.backbone.candidates else "pretrain"
        return self.run_directory.require("backbone.json", PretrainedBackbone, self._backbone_fingerprint, stage=stage)

    @property
    def _measures_features(self) -> bool:
        return "feature_diversity" in self.config.diversity.measures

    @cached_property
    def _profile_fingerprint(self) -> str:
        return fingerprints.of_profile(
            self.config,
            data=self._catalogue_record.data_fingerprint,
            files=self._catalogue_record.fingerprint,
            backbone=self._backbone_record if self._measures_features else None,
            version=PROFILE_VERSION,
        )

    @cached_property
    def _profile_record(self) -> Profile:
        return self.run_directory.require("profile.json", Profile, self._profile_fingerprint, stage="profile")

    @cached_property
    def _groups_fingerprint(self) -> str:
        return fingerprints.of_groups(self.config, profile=self._profile_record.fingerprint, version=GROUPING_VERSION)

    @cached_property
    def _groups_record(self) -> Groups:
        return self.run_directory.require("groups.json", Groups, self._groups_fingerprint, stage="group")

    @cached_property
    def _groups_context(self) -> GroupContext:
        return GroupContext(
            config=self.config,
            run_directory=self.run_directory,
            backbone=self._backbone_record,
            table=self._samples,
            reader=self._reader,
            profile=self._profile_record,
            groups=self._groups_record,
            shape=observe_cluster(elastic=self.config.cluster.autoscaling),
            say=self._say,
        )

    # The stages: each gives how many units of work it did.

    def _pretrain(self) -> int:
        if self.config.backbone.candidates:
            return self._candidates.prepare()
        fingerprint = self._backbone_fingerprint
        if self.run_directory.find("backbone.json", PretrainedBackbone, fingerprint):
            return 0
        self._say(f"pretrain: {self.config.backbone.name} with weights {self.config.backbone.weights}")
        source = None
        if self._source is not None:
            source = self._find_catalogue(self._source) or self._make_catalogue(self._source)
        record = prepare_backbone(self.config, self.run_directory.uri, source, fingerprint=fingerprint)
        self.run_directory.write("backbone.json", record)
        self.run_directory.prune("backbone", keep=fingerprint)
        if record.source_accuracy is not None:
            self._say(f"pretrain: validation accuracy {record.source_accuracy:.3f} on the source task")
        return 1

    def _catalogue(self) -> int:
        if self._find_catalogue(self._ingest):
            return 0
        # The profile would say so too, but only after every image was opened.
        require_attributes(self._ingest.data, self.config.diversity.columns)
        record = self._make_catalogue(self._ingest)
        bad = "".join(f"; {count} x {reason}" for reason, count in record.quarantine_reasons.items())
        self._say(
            f"catalogue: {record.num_images:,} images, {len(record.labels)} labels, {len(record.subsets)} subsets; "
            f"{record.num_cached:,} cached as pixels; {record.num_quarantined:,} rows quarantined{bad}"
        )
        if finding := copies_finding(record):
            self._say(f"catalogue: {finding}")
        return record.num_images + record.num_quarantined + record.num_copies_left_out

    def _find_catalogue(self, plan: IngestPlan) -> Catalogue | None:
        return self.run_directory.find(f"{plan.folder}.json", Catalogue, self._catalogue_fingerprint(plan))

    def _make_catalogue(self, plan: IngestPlan) -> Catalogue:
        fingerprint = self._catalogue_fingerprint(plan)
        self._say(f"{plan.folder}: reading {plan.data.uri}")
        record = make_catalogue(plan, fingerprint=fingerprint, say=self._say)
        self.run_directory.write(f"{plan.folder}.json", record)
        self.run_directory.prune(plan.folder, keep=fingerprint)
        return record

    def _choose_backbone(self) -> int:
        """Make the best of the candidates the run's backbone; it can only be told once there are images."""
        fingerprint = self._backbone_fingerprint
        if self.run_directory.find("backbone.json", PretrainedBackbone, fingerprint):
            return 0
        ranking = self._rank(self._candidates, name="candidates")
        chosen = self._candidates.backbone(ranking.chosen)
        self.run_directory.write("backbone.json", chosen.model_copy(update={"fingerprint": fingerprint}))
        self._say(f"backbone: {ranking.chosen} is taken")
        return 1

    def _rank(self, candidates: Candidates, *, name: str) -> BackboneRanking:
        ranking = rank_backbones(candidates, self._catalogue_record, self._samples, self._reader, name=name)
        candidates.forget_others(keep=self._candidates.fingerprints.values())
        return ranking

    def _profile(self) -> int:
        chosen = self._choose_backbone() if self.config.backbone.candidates else 0
        profiled = self._measure_diversity()
        return chosen + profiled + (self._measure_distances() if self._measures_features else 0)

    def _measure_diversity(self) -> int:
        if self.run_directory.find("profile.json", Profile, self._profile_fingerprint):
            return 0
        require_attributes(self._ingest.data, self.config.diversity.columns)
        plan = self._profile_plan(num_labels=len(self._catalogue_record.labels))
        workbench = None
        if self._measures_features:
            workbench = Workbench.of(self.config, self._backbone_record, self.run_directory.uri)
        record = make_profile(
            self._samples, self._reader, workbench, plan, fingerprint=self._profile_fingerprint, say=self._say
        )
        self.run_directory.write("profile.json", record)
        self._say(f"profile: {', '.join(plan.settings.measures)} of {len(record.subsets)} subsets over {record.split}")
        return max(1, sum(found.num_images for found in record.subsets))

    def _profile_plan(self, *, num_labels: int) -> ProfilePlan:
        config = self.config
        return ProfilePlan(
            settings=ProfileSettings(
                num_labels=num_labels,
                measures=config.diversity.measures,
                split=config.diversity.split,
                min_images=config.grouping.min_images,
                seed=config.seed,
                entropy_estimator=config.diversity.entropy_estimator,
                attributes=config.diversity.columns,
            ),
            sample_per_subset=config.diversity.sample_per_subset,
            partials_uri=self.run_directory.path("profile", "partials"),
            stall_timeout_s=config.cluster.stall_timeout_s,
        )

    @cached_property
    def _distances_fingerprint(self) -> str:
        source = self._source_images
        return fingerprints.of_distances(
            self.config,
            profile=self._profile_fingerprint,
            source="" if source is None else source.catalogue.data_fingerprint,
            version=DISTANCES_VERSION,
        )

    @cached_property
    def _source_images(self) -> LabelledImages | None:
        catalogue = None if self._source is None else self._find_catalogue(self._source)
        if self._source is None or self.config.pretrain is None or catalogue is None:
            return None
        return LabelledImages(
            catalogue=catalogue,
            samples=read_samples(self.run_directory.uri, catalogue),
            reader=pixel_reader(self._source, catalogue),
            classes=self.config.pretrain.classes or catalogue.labels,
        )

    def _measure_distances(self) -> int:
        fingerprint, catalogue = self._distances_fingerprint, self._catalogue_record
        if self.run_directory.find("distances.json", Distances, fingerprint):
            return 0
        images = LabelledImages(
            catalogue=catalogue, samples=self._samples, reader=self._reader, classes=catalogue.labels
        )
        found = distances_of(
            images,
            self._source_images,
            Workbench.of(self.config, self._backbone_record, self.run_directory.uri),
            min_images=self.config.grouping.min_images,
            stall_timeout_s=self.config.cluster.stall_timeout_s,
        )
        self.run_directory.write("distances.json", found.model_copy(update={"fingerprint": fingerprint}))
        return 1

    def _group(self) -> int:
        if self.run_directory.find("groups.json", Groups, self._groups_fingerprint):
            return 0
        groups = group_subsets(self._profile_record, self.config.grouping, self.config.grouping_measures)
        record = groups.model_copy(update={"fingerprint": self._groups_fingerprint})
        self.run_directory.write("groups.json", record)
        for group in record.groups:
            low, high = group.score_range
            self._say(
                f"group {group.name}: {len(group.subsets)} subsets, {group.num_images:,} images, "
                f"{record.measures[0]} {low:.3f} to {high:.3f}"
            )
        if finding := grouping_finding(record):
            self._say(f"group: {finding}")
        return 1

    def _report(self) -> int:
        context = self._groups_context
        evaluations = read_evaluations(context)
        report = Report(
            fingerprint=storage.digest("report", [record.fingerprint for record in evaluations]),
            name=self.config.name,
            catalogue=self._catalogue_record,
            profile=self._profile_record,
            groups=self._groups_record,
            searches=read_searches(context),
            recipes=context.recipes(),
            models=read_models(context),
            evaluations=evaluations,
            comparisons=pool(
                [read_predictions(context, evaluation) for evaluation in evaluations],
                bootstrap_samples=self.config.evaluate.bootstrap_samples,
                seed=self.config.seed,
            ),
            costs=self._costs().stages,
            search_costs=read_costs(context),
            rankings=self._rankings(),
            distances=self._distances(),
        )
        page = render_html(report)
        storage.write_bytes(self.run_directory.path("report.html"), page.encode())
        self.run_directory.write("report.json", report)
        return 1

    def _rankings(self) -> list[BackboneRanking]:
        """Give the ranking that chose the backbone, and the last one that was asked for, of the data as it is."""
        asked = self.run_directory.find_any("rankings/asked.json", BackboneRanking)
        data = self._catalogue_record.data_fingerprint
        return [found for found in (self.ranked(), asked) if found is not None and found.data_fingerprint == data]

    def _distances(self) -> Distances | None:
        if not self._measures_features:
            return None
        return self.run_directory.find("distances.json", Distances, self._distances_fingerprint)
