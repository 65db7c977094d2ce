"""What the stages of a run work from: found in its directory, or the stage that makes it must run first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from orchestrator import fingerprints
from orchestrator.cluster.ingest import (
    CATALOGUE_VERSION,
    IngestPlan,
    pixel_reader,
    read_samples,
)
from orchestrator.cluster.profiling import PROFILE_VERSION, ProfilePlan
from orchestrator.cluster.resources import observe_cluster
from orchestrator.config import BackboneConfig, DataConfig, ExperimentConfig, LabelNeed
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.data.sources import listing_digest
from orchestrator.demo import resolve_demo
from orchestrator.diversity.grouping import GROUPING_VERSION
from orchestrator.diversity.profiling import ProfileSettings
from orchestrator.records import (
    Catalogue,
    Groups,
    PretrainedBackbone,
    Pretraining,
    Profile,
)
from orchestrator.runs import RunDirectory
from orchestrator.stages.context import GroupContext
from orchestrator.stages.distances import DISTANCES_VERSION, GROUP_DISTANCES_VERSION, KnownSource, LabelledImages
from orchestrator.stages.ranking import Candidates, backbone_fingerprint
from orchestrator.stages.sources import known_classes


class RunInputs:
    """Find the inputs of stages and their fingerprints; each is looked for when it is first wanted.

    Records raise RecordError naming the stage to run first.
    """

    def __init__(self, config: ExperimentConfig, run_directory: RunDirectory, *, say: Callable[[str], None]) -> None:
        """Take an experiment and its directory; `say` receives a line of plain words for everything that happens."""
        self.config = config
        self.run_directory = run_directory
        self._say = say
        self._listings: dict[str, str] = {}

    @cached_property
    def ingest(self) -> IngestPlan:
        """Give the plan of the catalogue pass."""
        return self.ingest_plan(self.config.data, "catalogue", needs_subset=True)

    @cached_property
    def source(self) -> IngestPlan | None:
        """The source task's plan; None when the weights come from elsewhere."""
        pretrain = self.config.own_pretraining
        if pretrain is None:
            return None
        if pretrain.data is None:
            return self.ingest
        return self.ingest_plan(
            pretrain.data,
            "pretrain/catalogue",
            needs_subset=False,
            labels=pretrain.labels,
            # Where the run's images are learnt too, what looks like one of them must not be.
            with_looks=pretrain.with_target is not None and self.config.data.deduplicate == "near",
        )

    @cached_property
    def companion(self) -> IngestPlan | None:
        """Give the plan of the catalogue of what groups are trained together with; None where there is nothing."""
        source, data = self.config.source, self.config.source_data
        if source is None or data is None:
            return None
        return self.ingest_plan(
            data,
            "source/catalogue",
            needs_subset=False,
            labels=source.labels,
            # What looks like one of the run's images is no source for them.
            with_looks=self.config.data.deduplicate == "near",
        )

    @cached_property
    def companion_catalogue(self) -> Catalogue | None:
        """Give the catalogue of what groups are trained together with; None where there is nothing."""
        if self.companion is None:
            return None
        fingerprint = self.catalogue_fingerprint(self.companion)
        return self.run_directory.require(f"{self.companion.folder}.json", Catalogue, fingerprint, stage="catalogue")

    @cached_property
    def companion_images(self) -> LabelledImages | None:
        """Give the images that groups are trained together with; None where there is nothing."""
        catalogue = self.companion_catalogue
        if self.companion is None or self.config.source is None or catalogue is None:
            return None
        return LabelledImages(
            catalogue=catalogue,
            samples=read_samples(self.run_directory.uri, catalogue),
            reader=pixel_reader(self.companion, catalogue),
            classes=known_classes(self.config.source, catalogue),
        )

    def ingest_plan(
        self,
        data: DataConfig,
        folder: str,
        *,
        needs_subset: bool,
        labels: LabelNeed = "every",
        with_looks: bool = False,
    ) -> IngestPlan:
        """Plan a catalogue pass over some data, whose results go to `folder`."""
        return IngestPlan(
            data=resolve_demo(data, self.run_directory.path("demo")),
            image_size=self.config.backbone.image_size,
            resize=self.config.backbone.resize,
            seed=self.config.seed_of("split"),
            run_uri=self.run_directory.uri,
            folder=folder,
            needs_subset=needs_subset,
            labels=labels,
            with_looks=with_looks,
            stall_timeout_s=self.config.cluster.stall_timeout_s,
        )

    def catalogue_fingerprint(self, plan: IngestPlan) -> str:
        """Fingerprint the catalogue that a plan makes."""
        # The input is listed once a run: what arrives meanwhile is for the next one.
        if plan.folder not in self._listings:
            self._listings[plan.folder] = listing_digest(plan.data)
        return fingerprints.of_catalogue(
            self.config,
            plan.data,
            listing=self._listings[plan.folder],
            version=CATALOGUE_VERSION,
            labels=plan.labels,
            with_looks=plan.with_looks,
        )

    def find_catalogue(self, plan: IngestPlan) -> Catalogue | None:
        """Give the catalogue that a plan makes; None when it is not up to date."""
        return self.run_directory.find(f"{plan.folder}.json", Catalogue, self.catalogue_fingerprint(plan))

    @cached_property
    def candidates(self) -> Candidates:
        """Give the candidate backbones of the experiment."""
        return self._candidates_of(self.config.backbone.by_title)

    def candidates_named(self, names: Sequence[str]) -> Candidates:
        """Give candidates by the experiment's titles or torchvision's names."""
        return self._candidates_of({name: self._named(name) for name in names})

    def _candidates_of(self, networks: Mapping[str, BackboneConfig]) -> Candidates:
        return Candidates(config=self.config, run_directory=self.run_directory, networks=networks, say=self._say)

    def _named(self, name: str) -> BackboneConfig:
        """Give the experiment's network of this title, else torchvision's with its default weights, on its pixels."""
        own = self.config.backbone
        network = own.by_title.get(name, BackboneConfig(name=name, image_size=own.image_size, resize=own.resize))
        if network.weights != "pretrain":
            return network
        return network.model_copy(update={"weights": self.run_directory.path(self.backbone.weights)})

    @cached_property
    def backbone_fingerprint(self) -> str:
        """Fingerprint the run's backbone."""
        if self.config.backbone.candidates:
            return self.candidates.ranking_fingerprint(self.catalogue.data_fingerprint)
        listing = "" if self.source is None else self.catalogue_fingerprint(self.source)
        if self.config.pretrains_on_target:
            listing = f"{listing} {self.catalogue_fingerprint(self.ingest)}"
        return backbone_fingerprint(self.config, listing)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Give the catalogue."""
        fingerprint = self.catalogue_fingerprint(self.ingest)
        return self.run_directory.require("catalogue.json", Catalogue, fingerprint, stage="catalogue")

    @cached_property
    def samples(self) -> SampleTable:
        """Give the catalogue's table of samples."""
        return read_samples(self.run_directory.uri, self.catalogue)

    @cached_property
    def reader(self) -> PixelReader:
        """Give the reader of the samples' pixels."""
        return pixel_reader(self.ingest, self.catalogue)

    @cached_property
    def backbone(self) -> PretrainedBackbone:
        """Give the pretrained backbone."""
        stage = "profile" if self.config.backbone.candidates else "pretrain"
        return self.run_directory.require("backbone.json", PretrainedBackbone, self.backbone_fingerprint, stage=stage)

    @property
    def measures_features(self) -> bool:
        """Tell whether the profile needs a backbone."""
        return "feature_diversity" in self.config.diversity.measures

    @cached_property
    def profile_fingerprint(self) -> str:
        """Fingerprint the profile."""
        return fingerprints.of_profile(
            self.config,
            data=self.catalogue.data_fingerprint,
            files=self.catalogue.fingerprint,
            backbone=self.backbone if self.measures_features else None,
            version=PROFILE_VERSION,
        )

    def profile_plan(self, *, num_labels: int) -> ProfilePlan:
        """Plan the profile, for a label space of `num_labels`."""
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
            sketch_above=config.diversity.sketch_above,
            partials_uri=self.run_directory.path("profile", "partials"),
            stall_timeout_s=config.cluster.stall_timeout_s,
        )

    @cached_property
    def profile(self) -> Profile:
        """Give the profile."""
        return self.run_directory.require("profile.json", Profile, self.profile_fingerprint, stage="profile")

    @cached_property
    def distances_fingerprint(self) -> str:
        """Fingerprint the distances between subsets and to the sources."""
        pretraining, companion = self._known_pretraining, self.companion_catalogue
        return fingerprints.of_distances(
            self.config,
            profile=self.profile_fingerprint,
            source="" if pretraining is None else pretraining.data_fingerprint,
            companion="" if companion is None else companion.data_fingerprint,
            version=DISTANCES_VERSION,
        )

    @cached_property
    def group_distances_fingerprint(self) -> str:
        """Fingerprint the distances of groups to the sources."""
        return fingerprints.of_group_distances(
            distances=self.distances_fingerprint, groups=self.groups_fingerprint, version=GROUP_DISTANCES_VERSION
        )

    @cached_property
    def known_source(self) -> KnownSource | None:
        """Give what is known of the images that the backbone was pretrained on; None where nothing is."""
        found = self._known_pretraining
        if found is None or found.features is None:
            return None
        return KnownSource.read(
            self.run_directory, kind="pretraining", uri=found.data_uri, path=found.features, classes=found.classes
        )

    @property
    def _known_pretraining(self) -> Pretraining | None:
        found = self.backbone.pretraining
        return None if found is None or found.features is None else found

    @cached_property
    def groups_fingerprint(self) -> str:
        """Fingerprint the groups."""
        return fingerprints.of_groups(self.config, profile=self.profile.fingerprint, version=GROUPING_VERSION)

    @cached_property
    def groups(self) -> Groups:
        """Give the groups."""
        return self.run_directory.require("groups.json", Groups, self.groups_fingerprint, stage="group")

    @cached_property
    def context(self) -> GroupContext:
        """Give what the stages that work group by group need."""
        return GroupContext(
            config=self.config,
            run_directory=self.run_directory,
            backbone=self.backbone,
            table=self.samples,
            reader=self.reader,
            profile=self.profile,
            groups=self.groups,
            shape=observe_cluster(elastic=self.config.cluster.autoscaling),
            say=self._say,
            source=self.companion_images,
        )
