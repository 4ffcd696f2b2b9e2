"""The bodies of requests and responses, as in openapi/openapi.json. Written by tools/models.py: do not edit.

Responses are plain dictionaries; these types are for editors and type checkers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Literal, Optional, TypedDict, Union

if TYPE_CHECKING:
    from typing_extensions import NotRequired

__all__ = [
    "Accepted",
    "AlignmentDifferencesResponse",
    "AlignmentResponse",
    "AnnotatorAgreement",
    "AnnotatorProgress",
    "AnnotatorVoting",
    "AnswerResponse",
    "ApsArea",
    "AttributePrediction",
    "AttributeSummary",
    "AttributesResponse",
    "AuditResponse",
    "AuditRow",
    "Batching",
    "Blocked",
    "BoardChangesResponse",
    "BoardEntry",
    "BundleFacts",
    "BundleTotals",
    "By",
    "Cell",
    "ChangedPair",
    "ChangesResponse",
    "Check",
    "Choice",
    "Code",
    "Coefficient",
    "CollectedSetting",
    "CollectedSettings",
    "Combination",
    "CompareResponse",
    "ComparedRun",
    "Comparison",
    "CompositionResponse",
    "ConsistencyResponse",
    "CorrelationsResponse",
    "CosmosEnqueued",
    "CosmosInput",
    "CosmosMessage",
    "CosmosPing",
    "CosmosPull",
    "CosmosScores",
    "Cost",
    "Counts",
    "DatasetEntry",
    "DatasetResponse",
    "DatasetSource",
    "DatasetTotals",
    "DatasetsResponse",
    "Declarations",
    "DeclaredBy",
    "Deleted",
    "DeletedPreferences",
    "DeletedResponse",
    "Difference",
    "Direction",
    "Disagreement",
    "DistributionsResponse",
    "Done",
    "DriftCertificate",
    "EngineResponse",
    "EnrolledResponse",
    "Estimate",
    "Evidence",
    "ExportFormat",
    "FaceEvidence",
    "Factors",
    "Failure",
    "FailureCount",
    "FailuresResponse",
    "Family",
    "FamilyEntry",
    "FamilyPair",
    "FeatureUse",
    "FilesResponse",
    "Finding",
    "FirstPlaceShare",
    "FirstPlacesResponse",
    "FirstPlacesRun",
    "Flag",
    "FlowFactoryHealth",
    "FlowFactoryRequest",
    "FlowFactoryResponse",
    "Format",
    "GalleryImage",
    "GalleryResponse",
    "GalleryRow",
    "GalleryRun",
    "GallerySort",
    "GenerateForm",
    "GenerateResponse",
    "GenerateSettings",
    "GeneratedFile",
    "GeneratorModels",
    "GeneratorSettings",
    "GoldItem",
    "GoldPlan",
    "GraphSource",
    "GroundingEvidence",
    "GroupBy",
    "GroupDifference",
    "GroupStatistics",
    "Health",
    "ImageFaces",
    "ImageFlag",
    "ImageProvenance",
    "ImageSource",
    "ImportResponse",
    "ImportedAnswers",
    "Item",
    "ItemError",
    "KindStatistics",
    "KindWord",
    "LabelCount",
    "Labels",
    "LaneStatus",
    "LeaderboardResponse",
    "LeftOut",
    "LeftOutAnnotator",
    "Line",
    "Match",
    "MatrixCategory",
    "MatrixEntry",
    "MatrixMethod",
    "MatrixResponse",
    "MeasuredPack",
    "Metadata",
    "MethodCard",
    "MethodEntry",
    "MethodPreference",
    "MethodPreferences",
    "MethodResponse",
    "MethodRun",
    "MethodsResponse",
    "MetricAlignment",
    "MetricDistribution",
    "MetricDrift",
    "MetricEntry",
    "MetricFirstPlaces",
    "MetricNumbers",
    "MetricsResponse",
    "ModelsResponse",
    "Need",
    "NewAnswer",
    "NewExclusion",
    "NewMethod",
    "NewPreferences",
    "NewRun",
    "NewState",
    "NextEntry",
    "NextResponse",
    "NoAlpha",
    "NoCoefficient",
    "NoConsistency",
    "NoFirstPlaces",
    "NoInterval",
    "NoSwap",
    "NotComparable",
    "NullDifference",
    "NullReason",
    "ObjectEvidence",
    "OnNull",
    "Origin",
    "Outcome",
    "OutlierEntry",
    "PackId",
    "PairDifference",
    "Paper",
    "PeopleFirstPlaces",
    "PersonEntry",
    "PhotoEntry",
    "PhotoForm",
    "PhotoMetadata",
    "PhotoSwap",
    "PhotoSwapResponse",
    "Place",
    "Policy",
    "Precision",
    "PreferenceEntry",
    "PreferencesPage",
    "PreferencesResponse",
    "PreferredShare",
    "Problem",
    "ProgressEvent",
    "ProgressResponse",
    "Prompt",
    "PromptSelection",
    "PromptsBody",
    "PromptsResponse",
    "Proportion",
    "Provenance",
    "Provider",
    "PublishedCell",
    "PublishedFigure",
    "PublishedRow",
    "PublishedTau",
    "Purpose",
    "Quantity",
    "QuantityStatistics",
    "QuestionProgress",
    "QuestionWord",
    "RankedOrder",
    "RankedResponse",
    "RankedSample",
    "Reference",
    "RegisteredResponse",
    "RelationEvidence",
    "RelationKind",
    "RelationSource",
    "ReportResponse",
    "ReportRow",
    "Residency",
    "ResultsResponse",
    "RewardProvenance",
    "RewardTimings",
    "RewardsForm",
    "RewardsRequest",
    "RewardsResponse",
    "RewardsTensors",
    "Row",
    "RunFlags",
    "RunOrder",
    "RunResponse",
    "RunSampleForm",
    "RunState",
    "RunSubmission",
    "RunsResponse",
    "SampleBrief",
    "SampleEntry",
    "SampleResponse",
    "SampleSizeResponse",
    "SampleState",
    "Samples",
    "ScoreEntry",
    "ScoreForm",
    "ScoreResponse",
    "SettingValue",
    "Settings",
    "ShareInterval",
    "Side",
    "SkipReason",
    "SliceAlignment",
    "SliceComparison",
    "SliceDifferences",
    "SliceEntry",
    "SliceMetric",
    "SlicesResponse",
    "SourceSpec",
    "Spread",
    "Statistic",
    "StatisticsResponse",
    "StoredEvidence",
    "StoredImage",
    "StoredPreference",
    "StoredScore",
    "StudiesResponse",
    "StudyAgreement",
    "StudyDifference",
    "StudyForm",
    "StudyMethod",
    "StudyNextResponse",
    "StudyPlan",
    "StudyResponse",
    "StudyResults",
    "StudyState",
    "StudyTask",
    "Subject",
    "SubmissionDetails",
    "SubmissionResponse",
    "SubmissionState",
    "SubmissionsResponse",
    "SubmittedEntry",
    "SubmittedResponse",
    "Summary",
    "SwappedMetric",
    "TableFormat",
    "TauDifference",
    "TauVerdict",
    "TextEvidence",
    "Timings",
    "TradeOffPoint",
    "TradeOffResponse",
    "TrainingData",
    "TrainingTerm",
    "TrainingTerms",
    "UniRlHealth",
    "UniRlIdentity",
    "UniRlItem",
    "UniRlRewards",
    "UniRlScoreRequest",
    "UniRlScoreResponse",
    "UniRlTurn",
    "Unmapped",
    "UserStudy",
    "Verification",
    "VerificationReport",
    "Voting",
    "Weights",
    "Withdrawal",
    "Within",
    "Worst",
]


class Accepted(TypedDict):
    """Outcome of recording preferences."""
    accepted: int
    """Number of preferences. If an annotator judges the same images for the same question several times, the last one
    counts.
    """


class AlignmentDifferencesResponse(TypedDict):
    """Differences of metrics in their agreement with annotators."""
    against: NotRequired[Optional[str]]
    """Code of the reference metric that was named; null if it is the one that agrees best."""
    answers: int
    """Number of preferences."""
    pack: str
    """Digest of the pack of the scores."""
    question: QuestionWord
    """The question put to annotators."""
    slices: List[SliceDifferences]
    """Comparisons over all pairs first, then by slice if that was requested."""


class AlignmentResponse(TypedDict):
    """Agreement of metrics with annotators."""
    agreement: AnnotatorAgreement
    """Agreement of annotators with each other."""
    answers: int
    """Number of preferences."""
    pack: str
    """Digest of the pack of the scores."""
    published: PublishedTau
    """Correlations that the Stellar paper published for this question, not measured here."""
    question: QuestionWord
    """The question put to annotators."""
    slices: List[SliceAlignment]
    """Agreement over all pairs first, then by slice."""


class AnnotatorAgreement(TypedDict):
    """Agreement of annotators with each other."""
    annotators: int
    """Number of annotators."""
    ratings_alpha: NotRequired[Optional[float]]
    """Krippendorff's alpha of the ratings on an ordinal scale."""
    ratings_alpha_high: NotRequired[Optional[float]]
    """Upper end."""
    ratings_alpha_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, resampling images."""
    ratings_alpha_no_interval: NotRequired[Optional[NoInterval]]
    ratings_alpha_reason: NotRequired[Optional[NoAlpha]]
    ratings_shared: int
    """Images with ratings of several annotators."""
    votes_alpha: NotRequired[Optional[float]]
    """Krippendorff's alpha of the votes on an ordinal scale of three: 1 for perfect agreement, 0 for chance. Null if no
    pair has two votes or all votes are the same.
    """
    votes_alpha_high: NotRequired[Optional[float]]
    """Upper end."""
    votes_alpha_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, resampling pairs of images. Null if alpha is null or there are fewer
    than three pairs.
    """
    votes_alpha_no_interval: NotRequired[Optional[NoInterval]]
    votes_alpha_reason: NotRequired[Optional[NoAlpha]]
    votes_shared: int
    """Pairs of images with votes of several annotators."""


class AnnotatorProgress(TypedDict):
    """Progress of one annotator."""
    annotator: str
    """Name of the annotator."""
    answers: int
    """All answers, to all questions."""
    by_operator: NotRequired[bool]
    """Whether the operator left the annotator out; otherwise, answers to gold items did."""
    excluded: NotRequired[Optional[str]]
    """Reason for which the annotator is left out."""
    gold: NotRequired[int]
    """Those of them about gold items, which count in no result."""
    gold_right: NotRequired[int]
    """Those of them that are right."""


class AnnotatorVoting(TypedDict):
    """How one annotator votes."""
    annotator: str
    """Name of the annotator."""
    cannot_tell: int
    """Pairs about which the annotator could not tell. They are not ties and do not count."""
    consistency: Proportion
    """Repeated pairs with the same answer as before."""
    first: Proportion
    """Preferences for the image that was shown first (on the left), of the votes with a preference and a known
    position. Without a habit, it is about one half.
    """
    ties: int
    """Those of them without a preference."""
    votes: int
    """Votes that count."""


class AnswerResponse(TypedDict):
    """A recorded answer."""
    id: str
    """Id of the answer, by which it can be withdrawn."""


class ApsArea(TypedDict):
    """`aps` as the mean over attributes of the area under the ROC curve."""
    clusters: int
    """Number of identities among them."""
    high: NotRequired[Optional[float]]
    """Upper end of the interval."""
    low: NotRequired[Optional[float]]
    """Lower end of its 95 % interval (BCa, by identity); null below three identities."""
    mean: NotRequired[Optional[float]]
    """The area in [0, 1], 0.5 for chance; null if every attribute is constant."""
    n: int
    """Number of samples with a prediction that counts."""
    no_interval: NotRequired[Optional[NoInterval]]


class AttributePrediction(TypedDict):
    """Prediction of one attribute for one sample."""
    attribute: str
    """CelebA name of the attribute."""
    decision: NotRequired[Optional[float]]
    """Log odds given by the probe, positive if the attribute is predicted; absent if there is no face."""
    left_out: NotRequired[Optional[LeftOut]]
    prediction: NotRequired[Optional[bool]]
    """Predicted label of the face in the image; the opposite of the target if there is no face."""
    target: NotRequired[Optional[bool]]
    """Label of the person."""


class AttributeSummary(TypedDict):
    """Result for one attribute over a run."""
    attribute: str
    """CelebA name of the attribute."""
    auc: NotRequired[Optional[float]]
    """Area under the ROC curve of the hard predictions; null if the attribute is left out or all targets are equal."""
    left_out: NotRequired[Optional[LeftOut]]
    n: int
    """Samples with a target."""
    positives: int
    """Samples with a target whose person has the attribute."""
    right: int
    """Samples with a target that are predicted correctly."""


class AttributesResponse(TypedDict):
    """Attribute preservation of a run."""
    attributes: List[AttributeSummary]
    """One entry for each attribute."""
    auc: NotRequired[Optional[float]]
    """Mean area under the ROC curve over the attributes that have one; 0.5 is chance. Null if none has one."""
    faceless_references: int
    """Number of judged samples whose reference image has no face: nothing is learnt from them."""
    judged: int
    """Number of judged samples."""
    pack: PackId
    """The loaded pack; only faces found with it are judged."""
    samples: List[SampleEntry]
    """One page of the judged samples, by name."""
    unknown_faces: int
    """Number of samples that are not judged because their faces are not stored: they expired, were deleted, or were
    found with another pack. Score these samples again.
    """
    without_reference: int
    """Number of samples that are not judged because they have no reference image, or no generated image because their
    scores were imported.
    """


class AuditResponse(TypedDict):
    """One page of the audit log."""
    items: List[AuditRow]
    """Entries, the newest first."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class AuditRow(TypedDict):
    """A write or a deletion."""
    address: NotRequired[Optional[str]]
    """Address of the client."""
    id: str
    """Id of the entry."""
    key: NotRequired[Optional[str]]
    """Name of the key."""
    key_id: NotRequired[Optional[str]]
    """Id of the key; absent if keys were not in use."""
    method: str
    """HTTP method."""
    request_id: str
    """Id of the request in the log."""
    resource: str
    """Values of the template's parameters, separated by slashes. Names of samples and annotators are hashes."""
    route: str
    """Template of the route."""
    status: int
    """HTTP status of the response; 499 if the client left before it."""
    time: str
    """Time at which the request arrived."""


Batching = Literal["dynamic", "fixed"]
"""How many rows the runs of a graph have. Kernels are chosen by shape, and another kernel rounds otherwise. With runs
of several shapes, the score of an image therefore depends on how many others were scored with it.
"""


class Blocked(TypedDict):
    """Reason why pending samples are blocked."""
    code: str
    """Machine-readable code: `pack_not_loaded`."""
    detail: str
    """Explanation, with what to do."""


class BoardChangesResponse(TypedDict):
    """One page of the change log."""
    items: List[BoardEntry]
    """Changes, the newest first."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class BoardEntry(TypedDict):
    """A change of a submission."""
    action: SubmissionState
    """The state into which the submission came."""
    at: str
    """Time of the change."""
    by: NotRequired[Optional[str]]
    """Id of the API key that made the change; null if keys were not in use."""
    digest: str
    """Digest of the bundle."""
    id: str
    """Id of the entry."""
    method: str
    """The method."""
    note: str
    """Note about the change; empty without one."""
    run: str
    """The run of the method."""
    submission: NotRequired[Optional[str]]
    """The submission; null after its deletion."""


class BundleFacts(TypedDict):
    """Facts of a bundle: the run, who computed its scores, and what its authors declare."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    declarations: Declarations
    """What the authors declare."""
    image_settings: CollectedSettings
    """Settings of the images."""
    method: str
    """The method."""
    metric_versions: Dict[str, int]
    """Version of each metric's definition."""
    metrics: Dict[str, BundleTotals]
    """Counts and means by metric."""
    pack: PackId
    """The pack of all scores."""
    program: str
    """Version of the program that made the bundle."""
    run: str
    """The run of the method."""
    samples: int
    """Number of samples."""
    service_versions: List[str]
    """Versions of the service that computed the scores."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""


class BundleTotals(TypedDict):
    """Counts and mean of one metric."""
    mean: NotRequired[Optional[float]]
    """Mean of the numbers, as measured and without penalty; null without any."""
    n: int
    """Number of samples with a number."""
    nulls: int
    """Number of samples without one."""


By = Literal["method", "run"]
"""Unit of a row of the leaderboard."""


class Cell(TypedDict):
    """Coefficient of two columns."""
    high: NotRequired[Optional[float]]
    """Upper end of the interval."""
    low: NotRequired[Optional[float]]
    """Lower end of the 95 % interval by identity, if intervals were requested; absent below 5 identities."""
    n: int
    """Samples that have both numbers; within prompts, those whose prompt has at least two of them."""
    prompts: NotRequired[Optional[int]]
    """Within prompts: number of these prompts."""
    reason: NotRequired[Optional[NoCoefficient]]
    value: NotRequired[Optional[float]]
    """Coefficient in [−1, 1]; null if fewer than two samples have both, or one column is constant over them."""


class PairDifference(TypedDict):
    """A pair of samples with the same name."""
    a: float
    """Score of A's sample under the policy."""
    b: float
    """Score of B's sample under the policy."""
    difference: float
    """A − B."""
    name: str
    """Name of both samples."""


class ChangedPair(PairDifference):
    """Two samples of the same name."""
    sample_a: NotRequired[Optional[SampleBrief]]
    sample_b: NotRequired[Optional[SampleBrief]]


class ChangesResponse(TypedDict):
    """Where two runs differ in one metric."""
    a: ComparedRun
    """Run A, which is judged."""
    b: ComparedRun
    """Run B, the baseline."""
    by: GroupBy
    """What pairs are grouped by."""
    gains: List[ChangedPair]
    """Pairs in which A is better, largest difference first. For a metric without a direction, larger counts as better.
    """
    groups: List[GroupDifference]
    """Groups, from the one in which A is best to the one in which it is worst. Those in the middle are left out if
    there are many. Intervals are not corrected for the number of groups: with 95 % intervals, about 1 of 20 groups
    without a difference is found to have one.
    """
    groups_found: int
    """Number of groups with enough pairs, shown or not."""
    losses: List[ChangedPair]
    """Pairs in which A is worse, largest difference first."""
    metric: str
    """Code of the metric."""
    pack: PackId
    """The pack of all scores."""
    pairs: int
    """Pairs in which both samples have a score."""


class Check(TypedDict):
    """One check behind a response of `/readyz` or `/startupz`."""
    name: str
    """What is checked: `start`, `engine`, `graphs`, `store`, `disk`, `spool`, `tasks` or `stop`; while the service
    starts, `migrations`, `pack` and `graphs`.
    """
    ok: bool
    """Whether the service can work as far as this check is concerned."""
    reason: NotRequired[Optional[str]]
    """What is wrong and what to do; missing if the check is ok."""
    since: str
    """When a probe first found this state."""


Choice = Literal["a", "b", "tie", "cannot_tell"]
"""The preferred one of two images."""


Code = Literal[
    "malformed_request",
    "not_found",
    "method_not_allowed",
    "sample_conflict",
    "photo_conflict",
    "run_conflict",
    "run_finished",
    "pack_conflict",
    "study_conflict",
    "study_closed",
    "submission_conflict",
    "image_unknown",
    "storage_full",
    "faces_not_stored",
    "nothing_to_compare",
    "payload_too_large",
    "unsupported_media_type",
    "request_timeout",
    "wrong_host",
    "cross_site",
    "unauthorized",
    "scope_missing",
    "key_limit",
    "missing_field",
    "repeated_field",
    "unknown_field",
    "invalid_field",
    "unknown_metric",
    "prompt_too_long",
    "image_empty",
    "image_unsupported",
    "image_truncated",
    "image_corrupt",
    "image_too_small",
    "overloaded",
    "unavailable",
    "engine_offloaded",
    "deadline_exceeded",
    "internal",
]
"""Machine-readable error code. The set is closed: a client may match on it exhaustively."""


Coefficient = Literal["kendall", "spearman", "pearson"]
"""A correlation coefficient of two series."""


class CollectedSetting(TypedDict):
    """Values of one setting in the images of a run."""
    distinct: int
    """Number of different values, listed or not."""
    missing: int
    """Number of images without the setting."""
    mixed: bool
    """Whether images have different values, or only some of them have one."""
    values: List[SettingValue]
    """The values, most frequent first; at most 16."""


class CollectedSettings(TypedDict):
    """Settings of the images of a run."""
    samples: int
    """Number of images."""
    settings: Dict[str, CollectedSetting]
    """Settings that at least one image has, by name: `model`, `steps`, `guidance`, `seed`."""


class Combination(TypedDict):
    """A weighted sum of rewards."""
    on_null: OnNull
    """What a null reward means. There is no default: each choice trains another model."""
    weights: Dict[str, float]
    """Weight of each reward, by name, from -1e6 to 1e6. Rewards without a weight do not count."""


class Comparison(TypedDict):
    """Comparison of two runs."""
    confidence: float
    """Coverage of the intervals."""
    not_compared: List[str]
    """Metrics that only one run has, or that the runs have in different versions."""
    only_a: int
    """Samples of A without a partner."""
    only_b: int
    """Samples of B without a partner."""
    pairs: int
    """Pairs of samples with the same name."""
    policy: Policy
    """The penalty policy."""
    slices: List[SliceComparison]
    """All pairs first, then slices of A's samples."""


class CompareResponse(Comparison):
    """A comparison of two runs."""
    a: ComparedRun
    """Run A, which is judged."""
    b: ComparedRun
    """Run B, the baseline."""
    pack: PackId
    """The pack of all scores."""


class ComparedRun(TypedDict):
    """A compared run."""
    id: str
    """Id of the run."""
    method: str
    """Method of the run."""
    run: str
    """Name of the run."""


class CompositionResponse(TypedDict):
    """What the prompts of a dataset ask for."""
    categories: List[LabelCount]
    """Prompts by category. A prompt may have several."""
    dataset: str
    """Name of the dataset."""
    kinds: List[LabelCount]
    """Prompts by kind, the most frequent first; as all lists, at most 1000 labels."""
    objects: List[LabelCount]
    """Prompts by object that they name."""
    people: int
    """Number of people that prompts are for."""
    prompts: int
    """Number of prompts."""
    relations: List[LabelCount]
    """Prompts by relation that they name: subject, predicate and object."""
    templates: int
    """Number of different texts, with `{}` for the person."""
    without_category: int
    """Prompts without a category."""
    without_kind: int
    """Prompts without a kind."""
    without_objects: int
    """Prompts that name no object."""
    without_relations: int
    """Prompts that name no relation."""


class ConsistencyResponse(TypedDict):
    """How alike the photos of each person of a dataset are."""
    dataset: str
    """Name of the dataset."""
    people: List[PersonEntry]
    """The people with photos, by identity."""
    revision: int
    """Revision of the dataset."""


class CorrelationsResponse(TypedDict):
    """A matrix of correlation coefficients."""
    coefficient: Coefficient
    """The coefficient."""
    families: NotRequired[List[FamilyEntry]]
    """The families of these metrics, in the same order."""
    family_pairs: NotRequired[List[FamilyPair]]
    """Mean absolute coefficients within families and between them."""
    matrix: List[List[Cell]]
    """Coefficients by row and column, each over the samples that have both scores."""
    metrics: List[str]
    """Codes of the metrics, in the order of rows and columns: by family."""
    of: int
    """Number of scored samples in these runs."""
    pack: str
    """Digest of the pack of the scores."""
    runs: int
    """Number of runs that the samples belong to."""
    samples: int
    """Number of samples that were read: all, or an evenly spaced subset if there are too many."""
    within: NotRequired[Optional[Within]]


class CosmosEnqueued(TypedDict):
    """An enqueued batch."""
    uuid: str
    """By which the results are pulled, for 10 minutes."""


class CosmosInput(TypedDict):
    """The array of a batch."""
    dtype: str
    """`torch.uint8`."""
    max: str
    """Greatest value of all pixels, with three decimals."""
    min: str
    """Least value of all pixels, with three decimals."""
    shape: List[int]
    """Images, height, width, 3."""


class CosmosMessage(TypedDict):
    """A message, of success or of an error."""
    message: str
    """What happened, and what to do about it."""


class CosmosPing(TypedDict):
    """What a ping has."""
    info_data: str
    """Anything."""


class CosmosPull(TypedDict):
    """What a pull names."""
    type: str
    """Name of one reward, as configured."""
    uuid: str
    """The `uuid` of the batch."""


class CosmosScores(TypedDict):
    """One reward of a batch."""
    decoded_duration: str
    """`0.00`: nothing is decoded."""
    duration: str
    """Seconds of scoring, with two decimals."""
    input_info: CosmosInput
    """The batch."""
    scores: Dict[str, List[float]]
    """The numbers in the order of the images, under the name of the reward."""
    type: str
    """Name of the reward."""


class Cost(TypedDict):
    """Time on a device."""
    gpu: NotRequired[Optional[str]]
    """The GPU, in words."""
    seconds: float
    """Seconds, above 0."""


class Counts(TypedDict):
    """Number of samples of a run, by state."""
    accepted: int
    """All accepted samples: pending, scored and failed."""
    failed: int
    """Failed; GET /v1/runs/{id}/samples?state=failed returns the reasons."""
    pending: int
    """Accepted and not scored yet."""
    scored: int
    """Scored."""


class DatasetEntry(TypedDict):
    """A dataset."""
    created: str
    """Time at which it was created."""
    name: str
    """Name of the dataset."""
    photos: int
    """Number of enrolled photos."""
    prompts: int
    """Number of registered prompts."""
    redistributable: bool
    """Whether its photos may be shown to others."""
    revision: int
    """Revision; every change raises it."""


class DatasetTotals(TypedDict):
    """Totals over all photos of a dataset."""
    attributes: Dict[str, Labels]
    """Number of photos with a face by attribute and label, for the attributes that are judged."""
    unknown: int
    """Number of photos enrolled with another pack: enrol them again to learn from them."""
    with_face: int
    """Number of photos in which the loaded pack finds a face."""
    without_face: int
    """Number of photos in which the loaded pack finds no face: nothing is learnt from them."""


class DatasetResponse(DatasetEntry, DatasetTotals):
    """A dataset with one page of its photos."""
    items: List[PhotoEntry]
    """One page of photos, sorted by identity and name."""


class DatasetSource(TypedDict):
    """The dataset from which `aps` learnt."""
    faces: int
    """Number of its photos with a face."""
    name: str
    """Name of the dataset."""
    revision: int
    """Revision of the dataset; every change raises it."""


class DatasetsResponse(TypedDict):
    """One page of datasets."""
    datasets: List[DatasetEntry]
    """Datasets, sorted by name."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class Declarations(TypedDict):
    """Declarations of a method's authors."""
    card: NotRequired[Optional[MethodCard]]
    flags: Dict[str, bool]
    """Flags of the run about training."""
    settings: Dict[str, Any]
    """Settings that the run declared: a JSON object."""


DeclaredBy = Literal["card", "run_flags"]
"""Who says what a method was trained on."""


class Deleted(TypedDict):
    """Counts of what was deleted."""
    faces: int
    """Number of images with stored faces, counted once per set of graphs that found them."""
    photos: int
    """Number of photos enrolled in a dataset."""
    prompts: int
    """Number of prompts registered in a dataset."""
    samples: int
    """Number of samples."""
    scores: int
    """Number of their scores."""


class DeletedPreferences(TypedDict):
    """Outcome of deleting an annotator."""
    preferences: int
    """Number of deleted preferences."""


class DeletedResponse(Deleted):
    """Counts of deleted data."""
    cached: int
    """Number of features that were evicted from the feature cache."""


class Difference(TypedDict):
    """One metric over the pairs of a slice: A minus B."""
    clusters: int
    """Identities among them; a sample without an identity counts as one."""
    difference: float
    """Mean of A − B."""
    few_clusters: bool
    """Whether there are fewer than 8 clusters, so that the interval is based on little data."""
    finding: Finding
    """Conclusion from the interval."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of its confidence interval: studentised bootstrap, clustered by identity. Null for fewer than two
    identities.
    """
    mean_a: float
    """Mean of A over these pairs."""
    mean_b: float
    """Mean of B over these pairs."""
    metric: str
    """Code of the metric."""
    n: int
    """Pairs in which both samples have a score."""
    no_interval: NotRequired[Optional[NoInterval]]
    p: NotRequired[Optional[float]]
    """Two-sided p-value of the sign-flip permutation test over identities."""
    p_bh: NotRequired[Optional[float]]
    """P-value with Benjamini and Hochberg's correction over the same metrics."""
    p_holm: NotRequired[Optional[float]]
    """P-value with Holm's correction over the slice's metrics that have a direction; null for the others."""
    version: int
    """Version of the metric's definition in both runs."""
    win_rate: NotRequired[Optional[float]]
    """Share of the pairs in which A is better; ties count half. Null for metrics without a direction."""


Direction = Literal["higher_is_better", "lower_is_better", "support"]
"""Better end of a metric's range."""


Disagreement = Literal["outlier_photos", "low_consistency"]
"""Why the photos of a person should be looked at."""


class DistributionsResponse(TypedDict):
    """The distributions of a run's scores."""
    metrics: List[MetricDistribution]
    """One entry for each metric with numbers, sorted by code."""
    pack: NotRequired[Optional[PackId]]
    run_id: str
    """Id of the run."""


Done = Literal["not_open", "excluded", "quota", "no_items"]
"""Why there is nothing to ask."""


class DriftCertificate(TypedDict):
    """Comparison of a pack's scores with another pack's."""
    against: MeasuredPack
    """The pack to compare with."""
    machine: str
    """CPU architecture and the instruction sets relevant to the graphs."""
    measured_at: str
    """Time of the measurement."""
    metrics: List[MetricDrift]
    """Results for metrics with a number from at least one pack."""
    pack: MeasuredPack
    """The pack that the certificate is about."""
    problems: List[str]
    """Samples that could not be scored, with the error."""
    samples: int
    """Number of samples scored by both packs."""
    schema: int
    """Version of this layout."""
    service_version: str
    """Version of the service."""
    without_numbers: Dict[str, str]
    """Metrics without a number from either pack, each with its most frequent reason."""


class EngineResponse(TypedDict):
    """What an offload or a reload did."""
    batching: Batching
    """How many rows the runs of graphs have."""
    changed: bool
    """False if there was nothing to do."""
    drain_seconds: float
    """Time until the work in flight was finished."""
    generator: NotRequired[Optional[Residency]]
    resident_bytes_after: NotRequired[Optional[int]]
    """Resident memory of the process after, in bytes; null if unknown."""
    resident_bytes_before: NotRequired[Optional[int]]
    """Resident memory of the process before, in bytes; null if unknown. The memory of a GPU is not a part of it."""
    seconds: float
    """Time to close the sessions, or to open them and to warm them up."""
    state: Residency
    """Whether the models are loaded now."""


class EnrolledResponse(TypedDict):
    """An enrolled photo."""
    created: bool
    """True if the photo was not enrolled before."""
    dataset: str
    """Name of the dataset."""
    faces: int
    """Number of faces found. Nothing is learnt from a photo without a face."""
    image: str
    """BLAKE3 hash of the photo's file, as taken by `DELETE /v1/images/{hash}`."""
    revision: int
    """Revision of the dataset; every change raises it."""


class Estimate(TypedDict):
    """A mean with its interval, or a declared cost, which has none."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval."""
    mean: float
    """The mean."""
    n: int
    """Number of samples with a number; 0 for a declared cost."""
    no_interval: NotRequired[Optional[NoInterval]]


class Evidence(TypedDict):
    """Evidence behind the scores."""
    attributes: NotRequired[List[AttributePrediction]]
    """Prediction of `aps` for each facial attribute."""
    checkpoints: Dict[str, str]
    """The checkpoint behind each metric that has a number, by code: for `hpsv2` it names the version."""
    details: Dict[str, Dict[str, float]]
    """Further numbers behind a metric's value, by code: `pick_score` has `published_scale`, its value times the model's
    logit scale.
    """
    faces: NotRequired[List[ImageFaces]]
    """The faces found in each image, if a metric looks for them."""
    matches: NotRequired[Dict[str, List[Match]]]
    """The most similar faces of the generated image and each reference or auxiliary image, by code of the metric."""
    objects: NotRequired[List[ObjectEvidence]]
    """Detection of each object in `detectables`, if a metric looks for objects."""
    relations: NotRequired[List[RelationEvidence]]
    """Detection of each relation of the prompt, if a metric looks for relations."""
    texts: List[TextEvidence]
    """One entry for each text model, on how it read the prompt."""


ExportFormat = Literal["csv", "jsonl"]
"""Format of an export."""


class FaceEvidence(TypedDict):
    """A face in the evidence. Its embedding is personal data and is omitted unless the operator enables it."""
    box: List[float]
    """Left, top, right, bottom in pixels of the upright image; may extend beyond its edges."""
    embedding: NotRequired[Optional[List[float]]]
    """The embedding; in responses only if the configuration allows it (`privacy.return_embeddings`)."""
    landmarks: List[List[float]]
    """x and y of left eye, right eye, nose, left and right corner of the mouth, as seen by the viewer."""
    probability: float
    """Probability that the detector assigns to the face."""


class Factors(TypedDict):
    """Factors of a relation's score for its best pair of boxes, each in [0, 1]."""
    object: float
    """Probability that the object is the one of the relation."""
    person: float
    """Probability that the subject is a person."""
    predicate: float
    """Probability of the predicate. For graphs that score pairs, it is multiplied by the probability of any relation.
    """


class Failure(TypedDict):
    """Reason why a sample failed."""
    code: str
    """Machine-readable code: one of the problem documents, `image_deleted` or `file_lost`."""
    detail: str
    """Explanation of the failure."""


class FailureCount(TypedDict):
    """A reason and the number of samples that failed for it."""
    code: str
    """Machine-readable code: one of the problem documents, `image_deleted` or `file_lost`."""
    samples: int
    """Number of samples."""


class FailuresResponse(TypedDict):
    """The failed samples of a run by reason."""
    failed: int
    """Number of failed samples."""
    reasons: List[FailureCount]
    """The reasons, most frequent first."""
    run_id: str
    """Id of the run."""


Family = Literal[
    "personalised",
    "attribute",
    "object",
    "relation",
    "text_to_image",
    "image_to_image",
    "image",
    "support",
]
"""What a metric compares with what; the order is that of grouped correlations. Metrics of one family read the same
inputs, so that they tend to agree whatever the images are. Agreement of different families says more.
"""


class FamilyEntry(TypedDict):
    """The metrics of one family in a matrix."""
    family: Family
    """The family: what its metrics compare with what."""
    metrics: List[str]
    """Codes of its metrics, which are neighbours in the matrix."""
    title: str
    """Name for people."""


class FamilyPair(TypedDict):
    """Mean absolute coefficient of the metrics of two families."""
    a: Family
    """The first family."""
    b: Family
    """The second family; the same for pairs within one."""
    mean_absolute: float
    """Mean of the absolute values of these coefficients, in [0, 1]."""
    pairs: int
    """Number of pairs of different metrics, one of each family, that have a coefficient."""


class FeatureUse(TypedDict):
    """A feature that a request used."""
    batch: int
    """Number of items in the batch, from this and other requests; 0 if the model did not run."""
    graph: str
    """Role of the graph."""
    milliseconds: float
    """Milliseconds from request to result, time in queues included."""
    of: str
    """The input: `image`, `prompt`, or `reference[0]` and so on."""
    origin: Origin
    """Origin of the feature: computed for this request, shared with a concurrent one, or cached."""


class FilesResponse(TypedDict):
    """The files for which a run has scores."""
    files: List[str]
    """Names of the files, as in the toolkit."""


Finding = Literal["better", "worse", "undecided"]
"""Conclusion from the interval of a difference."""


class FirstPlaceShare(TypedDict):
    """A run's share of first places."""
    answers: NotRequired[Optional[int]]
    """Number of answers in `share_of_answers`. Those in which a shown image has no score are left out, but count in the
    share of people.
    """
    first: float
    """First places; a shared one is a part of one."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval; `share_interval` says how it was computed."""
    no_interval: NotRequired[Optional[NoInterval]]
    of: int
    """Number of prompts, or of people's answers in which the run's image was shown."""
    share: NotRequired[Optional[float]]
    """`first / of`; null if `of` is 0."""
    share_interval: NotRequired[Optional[ShareInterval]]
    share_of_answers: NotRequired[Optional[float]]
    """Of a metric: its share over the images that people were shown, in the answers in which the run's image was: to be
    compared with the share of people. Null without such answers.
    """


class FirstPlacesResponse(TypedDict):
    """First places of methods."""
    dataset: NotRequired[Optional[str]]
    """The dataset of the runs, if they were not named."""
    kind: NotRequired[Optional[str]]
    """The kind of the prompts, if it was given."""
    metrics: List[MetricFirstPlaces]
    """One entry per metric with numbers, in the order of the registry."""
    no_shares: NotRequired[Optional[NoFirstPlaces]]
    pack: NotRequired[Optional[PackId]]
    people: NotRequired[Optional[PeopleFirstPlaces]]
    prompts: int
    """Prompts that all runs have."""
    question: QuestionWord
    """The question put to annotators."""
    runs: List[FirstPlacesRun]
    """The runs, in the order of the shares."""


class FirstPlacesRun(TypedDict):
    """A run whose first places are counted."""
    id: str
    """Id of the run."""
    method: str
    """Method of the run."""
    run: str
    """Name of the run."""


Flag = Literal["truncated", "no_face_in_image", "faceless_photos", "ungrounded", "approximate_predicate"]
"""A fact that a reader must know in addition to the number of a score."""


class FlowFactoryHealth(TypedDict):
    """Readiness of an adapter."""
    reward: str
    """The configured reward."""
    status: str
    """`"ok"`."""


class FlowFactoryRequest(TypedDict):
    """A batch of Flow-Factory."""
    condition_images: NotRequired[Optional[List[List[str]]]]
    """For each prompt, the images that the generator was given. They are reference images."""
    condition_videos: NotRequired[Optional[List[Dict[str, Any]]]]
    """Not supported."""
    image: NotRequired[Optional[List[str]]]
    """The generated images: files in base64, one for each prompt."""
    prompt: List[str]
    """The prompts."""
    video: NotRequired[Optional[List[Dict[str, Any]]]]
    """Not supported."""


class FlowFactoryResponse(TypedDict):
    """Rewards of a batch."""
    error: NotRequired[Optional[str]]
    """Why there are no numbers."""
    rewards: List[float]
    """A number for each prompt; none if there is an error."""


Format = Literal["json", "csv"]
"""Format of a response."""


class SampleBrief(TypedDict):
    """What lists show of a sample."""
    id: str
    """Id of the sample."""
    identity: NotRequired[Optional[str]]
    """The person that it is about."""
    image: NotRequired[Optional[str]]
    """BLAKE3 hash of the generated image's file; null if the scores were imported."""
    prompt: NotRequired[Optional[str]]
    """The prompt that the image was generated from."""
    references: List[str]
    """BLAKE3 hashes of the files of the reference images."""


class GalleryImage(SampleBrief):
    """An image of a row."""
    first: List[str]
    """Metrics that have this image first in the row: no image has a better score, and another one has a worse score."""
    scores: Dict[str, float]
    """Scores as measured, by metric; metrics without a number are left out."""


class GalleryResponse(TypedDict):
    """Runs side by side."""
    attributes: List[str]
    """Names of the people's attributes."""
    categories: List[str]
    """Categories of the prompts of all rows, before any filter."""
    dataset: NotRequired[Optional[str]]
    """The dataset of the runs, if they were not named."""
    identities: List[str]
    """People of all rows."""
    metrics: List[str]
    """Codes of the metrics."""
    next: NotRequired[Optional[int]]
    """Offset of the next page; absent on the last one."""
    pack: NotRequired[Optional[PackId]]
    prompt_kinds: List[str]
    """Kinds of the prompts of all rows."""
    rows: List[GalleryRow]
    """The rows of this page."""
    runs: List[GalleryRun]
    """The runs, in the order of a row's images."""
    total: int
    """Number of rows on all pages."""


class GalleryRow(TypedDict):
    """Samples of one name."""
    against_people: NotRequired[Optional[float]]
    """Disagreement of the metrics with people, 0 to 1: the share of metrics that prefer the image that a person did not
    prefer, and the mean over the judgements. Null without judgements.
    """
    disagreement: NotRequired[Optional[float]]
    """Disagreement of the metrics, 0 to 1: for each pair of images, the share of the metrics on the smaller side among
    the largest that it can be, and the mean over the pairs. Null if no pair is decided by two metrics.
    """
    identity: NotRequired[Optional[str]]
    """The person, if it is known."""
    images: List[Optional[GalleryImage]]
    """The image of each run; null if the run has no sample of this name."""
    name: str
    """Name of the samples."""
    prompt: NotRequired[Optional[str]]
    """Prompt of the first image."""
    prompts_differ: bool
    """Whether an image of the row has another prompt: then the row does not compare like with like."""
    reference: NotRequired[Optional[str]]
    """Hash of the first reference image."""
    votes: int
    """Judgements of people with a preference between images of the row."""


class GalleryRun(TypedDict):
    """A run in a gallery."""
    has_scores: bool
    """Whether the run has scores of the pack."""
    id: str
    """Id of the run."""
    method: str
    """Method of the run."""
    run: str
    """Name of the run."""


GallerySort = Literal["name", "disagreement", "people"]
"""Order of the rows."""


class GenerateForm(TypedDict):
    """The form of `POST /v1/generate`."""
    mask: NotRequired[bytes]
    """The person in the photo: an image in which every pixel with a channel above 0 is foreground. It is resized to the
    photo. Default: the whole photo, with the flag `unmasked`.
    """
    metadata: NotRequired[Optional[GenerateSettings]]
    prompt: str
    """The prompt; `{}` stands for the person in the photo."""
    reference: NotRequired[bytes]
    """The photo of the person: PNG, JPEG, WebP or PPM. Required if the prompt has a `{}`."""


class GenerateResponse(TypedDict):
    """A generated image with its provenance."""
    flags: List[ImageFlag]
    """What was not as expected, such as `unmasked`."""
    hash: str
    """Content hash of the file."""
    image: str
    """The PNG file, in base64."""
    provenance: ImageProvenance
    """Pack and settings of the image, as in the file."""
    seconds: float
    """Time to generate the image, in seconds."""


class GenerateSettings(TypedDict):
    """Settings of an image. What is not there is as in the paper's images."""
    guidance: NotRequired[Optional[float]]
    """Guidance scale, 0 to 100; up to 1 there is none. Default: 5."""
    height: NotRequired[Optional[int]]
    """Height in pixels, as `width`."""
    negative_prompt: NotRequired[Optional[str]]
    """What the image must not show."""
    seed: NotRequired[Optional[int]]
    """Seed of the noise, the same as PyTorch's on a CPU. Default: 42."""
    steps: NotRequired[Optional[int]]
    """Denoising steps, 1 to `generator.most_steps` (150). Default: 100."""
    width: NotRequired[Optional[int]]
    """Width in pixels: a multiple of the model's, usually 32. Default: the model's."""


GeneratedFile = bytes
"""The PNG file of a generated image."""


class GeneratorModels(TypedDict):
    """The graphs that generate images."""
    default_side: int
    """Width and height in pixels, unless requested."""
    lanes: List[LaneStatus]
    """One entry for each graph."""
    largest_side: int
    """Largest width and height in pixels."""
    pack: PackId
    """The generator pack."""
    side_multiple: int
    """Pixels that width and height are multiples of."""
    system: str
    """Label of the system."""
    training: NotRequired[Optional[Dict[str, Any]]]
    """What the weights were trained on and without, if they were."""


class GeneratorSettings(TypedDict):
    """Settings that an image was generated with. No score depends on them."""
    guidance: NotRequired[Optional[float]]
    """Guidance scale."""
    model: NotRequired[Optional[str]]
    """The model."""
    seed: NotRequired[Optional[int]]
    """Seed."""
    steps: NotRequired[Optional[int]]
    """Number of denoising steps."""


class GoldItem(TypedDict):
    """An item with a known right answer."""
    name: str
    """Name of the samples."""
    right: str
    """The run whose image is the right answer."""
    runs: List[str]
    """Runs of the images, as many as other items have. They need not be runs of the study."""


class GoldPlan(TypedDict):
    """Items with known right answers, mixed in to find annotators who answer at random."""
    every: NotRequired[int]
    """One of so many items of an annotator is a gold item. Default: 10."""
    items: List[GoldItem]
    """1 to 100 items. Annotators are asked the first question of the study about them. Their names are used for no
    other items, unless `prompts.names` has them.
    """
    least: NotRequired[Optional[int]]
    """Answers to gold items before anybody is left out, at most the number of gold items. Default: 3, or the number of
    gold items if there are fewer.
    """
    share: NotRequired[float]
    """Smallest share of right answers: annotators below it are left out. Default: 0.7."""


class GraphSource(TypedDict):
    """Source of a graph's weights."""
    checkpoint: str
    """Hub id or file of the checkpoint."""
    precision: Precision
    """`fp32` or `fp16`."""
    revision: str
    """Revision of the checkpoint."""
    sha256: str
    """SHA-256 of the graph's file."""


class GroundingEvidence(TypedDict):
    """Best OWL-ViT box for the words of an object."""
    box: List[float]
    """Left, top, right, bottom of the best box in pixels of the upright image."""
    score: float
    """In [0, 1]. Unlike the scores in `objects`, words do not compete for boxes."""


GroupBy = Literal["identity", "prompt"]
"""What pairs are grouped by."""


class GroupDifference(TypedDict):
    """The pairs of one person or prompt: A minus B."""
    clusters: int
    """Resampled units among them: pairs of a person, identities of a prompt."""
    difference: float
    """Mean of A − B."""
    finding: Finding
    """Conclusion from the interval."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    label: str
    """Name of the person, or text of the prompt."""
    low: NotRequired[Optional[float]]
    """Lower end of its interval. It is not corrected for the number of groups."""
    mean_a: float
    """Mean of A over these pairs."""
    mean_b: float
    """Mean of B over these pairs."""
    n: int
    """Pairs in which both samples have a score."""
    no_interval: NotRequired[Optional[NoInterval]]


class GroupStatistics(TypedDict):
    """Statistics of one group. Items without a reward are left out of the mean and the deviation."""
    advantage: List[Optional[float]]
    """(reward - mean) / (std + 0.0001) of each item. 0 if all rewards are equal."""
    items: List[int]
    """Positions of the group's items in the request."""
    mean: NotRequired[Optional[float]]
    """Mean; null without a reward."""
    n: int
    """Number of items with a reward."""
    rank: List[Optional[int]]
    """Rank of each item: 1 + the number of items with a larger reward."""
    std: NotRequired[Optional[float]]
    """Standard deviation of the population; null without a reward."""


class Health(TypedDict):
    """Response of the probes."""
    checks: NotRequired[List[Check]]
    """The checks behind the response; none for liveness."""
    status: str
    """Always `ok`."""


class ImageFaces(TypedDict):
    """The faces in one image of a sample."""
    faces: List[FaceEvidence]
    """The largest first."""
    of: str
    """The image: `image`, `reference[0]`, `auxiliary[0]` and so on."""
    size: NotRequired[Optional[List[int]]]
    """Width and height of the upright image in pixels."""


ImageFlag = Literal["no_placeholder", "unmasked", "truncated", "negative_truncated"]
"""Something about an image that its user may not expect."""


class Settings(TypedDict):
    """Settings of an image."""
    guidance: float
    """Guidance scale; 1 and less is no guidance and half of the work."""
    height: int
    """Height in pixels."""
    seed: int
    """Seed of the noise. Only its low 32 bits count, as in PyTorch."""
    steps: int
    """Number of denoising steps."""
    width: int
    """Width in pixels."""


class ImageProvenance(Settings):
    """Where an image is from. It stands in the PNG, without prompt and photo, which are private."""
    digital_source_type: str
    """IPTC's digital source type."""
    generated: bool
    """Always true: the image shows nothing that happened."""
    pack: PackId
    """The pack with the weights."""
    software: str
    """The program and its version."""
    system: str
    """Label of the system."""


ImageSource = Union[str, Dict[str, Any]]
"""Where an image is."""


class ImportResponse(TypedDict):
    """Outcome of an import."""
    metrics: List[str]
    """Codes of the imported metrics."""
    new_samples: int
    """Number of samples that were created."""
    pack: PackId
    """The pack under which the scores are stored."""
    rows: int
    """Number of rows of the file."""
    scores: int
    """Number of scores that were written; they replace those of an earlier import of the same source."""


class ImportedAnswers(TypedDict):
    """Outcome of reading answers."""
    accepted: int
    """Number of recorded answers."""


class Item(TypedDict):
    """A generated image with what it is judged by."""
    auxiliary: NotRequired[List[ImageSource]]
    """Further images of the person."""
    group: NotRequired[Optional[str]]
    """Group of the item: those of one prompt."""
    id: NotRequired[Optional[str]]
    """Any name; it is repeated in errors."""
    image: ImageSource
    """The generated image."""
    metadata: NotRequired[Optional[Dict[str, Any]]]
    """Metadata as of a sample, or that of `GenEval`, whose `include` names the objects."""
    prompt: NotRequired[Optional[str]]
    """The prompt that it was generated from."""
    references: NotRequired[List[ImageSource]]
    """Reference images of the person."""


class ItemError(TypedDict):
    """Reason why an item could not be scored."""
    code: Code
    """Machine-readable code, one of those of problem documents."""
    detail: str
    """What is wrong and what to do about it."""
    id: NotRequired[Optional[str]]
    """`id` of the item, if it has one."""


class KindStatistics(TypedDict):
    """Statistics of the prompts of one kind, or of all."""
    kind: NotRequired[Optional[str]]
    """The kind of the prompts; null for all prompts together."""
    people: int
    """Number of people that the prompts are for."""
    prompts: int
    """Number of prompts."""
    prompts_per_person: Spread
    """Spread of the number of prompts over people."""
    quantities: List[QuantityStatistics]
    """The quantities. Tokens are left out if no tokenizer is known."""
    texts: int
    """Number of different texts, with `{}` for the person."""


KindWord = Literal[
    "prompt_kind",
    "category",
    "relation",
    "attribute",
    "size",
    "detectable",
    "predicate",
    "template",
    "fine_attribute",
    "aps_attribute",
]
"""A kind of slice."""


class LabelCount(TypedDict):
    """Number of prompts with a label."""
    label: str
    """The label."""
    prompts: int
    """Number of prompts."""


class Labels(TypedDict):
    """Number of photos by label of one attribute."""
    absent: int
    """Number of photos labelled `false`."""
    present: int
    """Number of photos labelled `true`."""


class LaneStatus(TypedDict):
    """Configuration and state of a lane."""
    batches: int
    """Batches run since start, without the warm-up."""
    file: str
    """File of the graph, relative to the pack."""
    healthy: bool
    """False after repeated failures or while a batch hangs, until the graph works again."""
    items: int
    """Items computed since start."""
    load_seconds: float
    """Time to load and warm up the graph, in seconds."""
    max_batch: int
    """Largest batch, in items."""
    precision: Precision
    """Precision of the graph's arithmetic."""
    provider: Provider
    """Execution provider that runs the graph."""
    queue_depth: int
    """Number of queued items."""
    resident_bytes: NotRequired[Optional[int]]
    """Growth of the process's memory while the graph was loaded, in bytes; null if unknown."""
    roles: List[str]
    """Roles of the graph; several if entries of the pack share a file."""
    source: SourceSpec
    """Checkpoint that the graph was exported from."""


class LeaderboardResponse(TypedDict):
    """One page of the leaderboard."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""
    on: NotRequired[Samples]
    """The samples that rows cover."""
    policy: Policy
    """The penalty policy that was applied."""
    published: NotRequired[Optional[Reference]]
    rows: List[Row]
    """Methods or runs, sorted as requested."""
    total: int
    """Number of rows on all pages."""


LeftOut = Literal["constant", "unlabelled", "no_target"]
"""Reason why an attribute does not count."""


class LeftOutAnnotator(TypedDict):
    """An annotator whose answers are left out."""
    annotator: str
    """Name of the annotator."""
    answers: int
    """Answers to this question that are left out."""
    cause: str
    """`operator`, or `gold` for wrong answers to gold items."""
    reason: str
    """The reason in words."""


class ReportRow(TypedDict):
    """A row of the report."""
    clusters: int
    """Number of identities among the samples with a score; a sample without an identity counts as one."""
    coverage: float
    """Share of the samples that have a score."""
    high: NotRequired[Optional[float]]
    """Upper end of the interval."""
    low: NotRequired[Optional[float]]
    """Lower end of the 95 % interval, resampled by identity."""
    mean: NotRequired[Optional[float]]
    """The statistic; null if it cannot be computed."""
    metric: str
    """Code of the metric."""
    n: int
    """Number of samples with a score."""
    sample_mean: NotRequired[Optional[float]]
    """Mean of the samples' scores, if `mean` is another statistic: for `aps` the mean share of correct predictions, as
    in leaderboards and slices.
    """
    statistic: Statistic
    """Definition of `mean`: the mean over the samples with a score, for all metrics except `aps`."""
    std: NotRequired[Optional[float]]
    """Standard deviation (ddof 1); null for `aps` and below two samples."""


class Line(ReportRow):
    """A row of the table."""
    few_clusters: bool
    """True if there are fewer than 8 such identities: with skewed scores, the coverage of the interval is then lower
    than stated.
    """
    no_interval: NotRequired[Optional[NoInterval]]
    nulls: NotRequired[Dict[str, int]]
    """Number of samples without a score, by reason."""
    place: NotRequired[Optional[Place]]


class Match(TypedDict):
    """A pair of matched faces."""
    cosine: float
    """Cosine similarity of their embeddings."""
    image_face: int
    """Index of the face of the generated image, from 0 in the order of `faces`."""
    photo: str
    """The reference or auxiliary image: `reference[0]`, `auxiliary[0]` and so on."""
    photo_face: int
    """Index of the face of the reference or auxiliary image."""


class MatrixCategory(TypedDict):
    """A row of a matrix."""
    category: str
    """The category: a label of the kind."""
    cells: List[Optional[MatrixEntry]]
    """One cell for each column; null if the column has too few samples of this category."""
    samples: int
    """Largest number of samples of this category in a column."""


class MatrixEntry(TypedDict):
    """A method in a category."""
    best: bool
    """True if no other column over the same samples has a better mean, and there is another one."""
    clusters: int
    """Number of identities among the numbers; a sample without an identity counts as one."""
    high: NotRequired[Optional[float]]
    """Upper end of the interval."""
    low: NotRequired[Optional[float]]
    """Lower end of the mean's 95 % interval, by identity."""
    mean: NotRequired[Optional[float]]
    """Mean of the numbers; null without any."""
    n: int
    """Number of samples with a number."""
    no_interval: NotRequired[Optional[NoInterval]]
    rank: NotRequired[Optional[int]]
    """1 + the number of columns over the same samples whose interval lies entirely on the better side of this one's.
    Null without an interval, and for metrics without a better end.
    """
    samples: int
    """Number of samples of the category, measured or not."""


class MatrixMethod(TypedDict):
    """A column of a matrix."""
    method: str
    """The method."""
    pack: PackId
    """The pack of all scores in the column."""
    run: NotRequired[Optional[str]]
    """Name of the run, if columns are runs."""
    runs: List[str]
    """Ids of the runs."""


class MatrixResponse(TypedDict):
    """A metric of methods by category."""
    categories: int
    """Number of categories, including those beyond `limit`."""
    columns: List[MatrixMethod]
    """Methods or runs, by name."""
    kind: str
    """Kind of the categories."""
    metric: str
    """Code of the metric."""
    policy: Policy
    """The penalty policy that was applied. Except for `prompt_kind`, it is decided over all samples of a run."""
    rows: List[MatrixCategory]
    """Categories, those with most samples first."""


class PackId(TypedDict):
    """Identifies a pack. Scores of different packs are never averaged."""
    digest: str
    """SHA-256 of the manifest, which names every file by hash; 64 hexadecimal digits."""
    name: str
    """Name in the manifest."""
    weights: Weights
    """`official`, `demo` or `imported`."""


class MeasuredPack(PackId):
    """One of two compared packs."""
    precisions: List[Precision]
    """Precisions of its graphs."""


class Metadata(TypedDict):
    """Further facts about a sample, in addition to its images and prompt. All of them are stored with the sample."""
    attributes: NotRequired[Dict[str, bool]]
    """Facial attributes of the person by CelebA name; `true` if present."""
    categories: NotRequired[List[str]]
    """Categories of the prompt, for slices of the leaderboard."""
    dataset: NotRequired[Optional[str]]
    """The dataset on whose photos the linear probes of `aps` are fitted."""
    detectables: NotRequired[List[str]]
    """Objects that the prompt names, in words."""
    finegrained_attributes: NotRequired[Dict[str, int]]
    """Levels of fine-grained attributes of the person, such as CelebA-Dialog's from 0 to 5. They are stored for slices,
    and no metric uses them.
    """
    identity: NotRequired[Optional[str]]
    """The person that the sample is about. Samples of one identity are resampled together for confidence intervals."""
    prompt_kind: NotRequired[Optional[str]]
    """Kind of the prompt, a free-form label for slices; Stellar uses `T` and `H`."""
    relations: NotRequired[List[List[str]]]
    """Relations that the prompt names, as subject, predicate, object. They replace those parsed from the prompt."""
    settings: NotRequired[GeneratorSettings]
    """Settings that the image was generated with. They are counted when the run is finished, and no metric uses them.
    """


class MethodCard(TypedDict):
    """What the authors of a method declare about it. Nothing of it is measured here."""
    base_model: NotRequired[Optional[str]]
    """The model that the method builds on."""
    code_url: NotRequired[Optional[str]]
    """Address of the code, `http` or `https`."""
    licence: NotRequired[Optional[str]]
    """Licence of code and weights, such as an SPDX expression."""
    paper: NotRequired[Optional[Paper]]
    per_image: NotRequired[Optional[Cost]]
    per_subject: NotRequired[Optional[Cost]]
    photos_per_subject: NotRequired[Optional[int]]
    """Number of photos of a subject that the method is given."""
    subject_tuning: NotRequired[Optional[bool]]
    """Whether the method is tuned for each subject before it generates images."""
    training: NotRequired[TrainingData]
    """What the method was trained on."""
    tuning_steps: NotRequired[Optional[int]]
    """Steps of tuning for a subject; only with `subject_tuning`."""


class MethodEntry(TypedDict):
    """A method with its number of runs."""
    card: NotRequired[Optional[MethodCard]]
    created: str
    """Time of creation, UTC, to the microsecond."""
    description: NotRequired[Optional[str]]
    """Description in free text."""
    name: str
    """Name of the method."""
    runs: int
    """Number of runs."""


class MethodPreference(TypedDict):
    """Annotators' preferences for one method."""
    method: str
    """The method."""
    no_interval: NotRequired[Optional[NoInterval]]
    pairs: int
    """Pairs with another method's image."""
    share: float
    """Preference share: (wins + ties / 2) / pairs."""
    share_high: NotRequired[Optional[float]]
    """Upper end."""
    share_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, clustered by prompt."""
    strength: NotRequired[Optional[float]]
    """Logarithm of the Bradley-Terry strength; the strengths sum to 0. A method is preferred to another with
    probability 1 / (1 + exp(other − own)). `no_strengths` gives the reason for null.
    """
    strength_high: NotRequired[Optional[float]]
    """Upper end."""
    strength_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, from the curvature of the likelihood, which assumes that votes are
    independent. If answers are several votes (`clustered`), it is from the spread over prompts. If `penalised`, it
    is the wider one of the two.
    """
    ties: int
    """Pairs without a preference."""
    wins: int
    """Pairs in which this method's image was preferred."""


class MethodPreferences(TypedDict):
    """Annotators' preferences by method, best first."""
    clustered: NotRequired[bool]
    """Whether the intervals of strengths are from the spread over prompts, because some answers are several votes (a
    choice of one out of several images), which are not independent.
    """
    methods: List[MethodPreference]
    """The methods."""
    no_strengths: NotRequired[Optional[str]]
    """Reason for missing strengths."""
    penalised: bool
    """Whether half a win was added to each side of every compared pair before fitting, because some methods never lost
    or never won, as in studies. Strengths are then shrunk together instead of infinitely far apart.
    """


class MethodResponse(TypedDict):
    """A method with its card and its runs."""
    method: MethodEntry
    """The method."""
    runs: List[MethodRun]
    """Its runs, newest first; at most 100."""
    training: TrainingTerms
    """What it was trained on, as far as anybody declares it."""


class MethodRun(TypedDict):
    """A run of a method."""
    created: str
    """Time at which it was created."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    flags: RunFlags
    """What the run declared about training."""
    image_settings: NotRequired[Optional[CollectedSettings]]
    run: str
    """Name of the run."""
    run_id: str
    """Id of the run."""
    scored: int
    """Number of scored samples."""
    settings: Dict[str, Any]
    """Settings that the run declared."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""
    state: RunState
    """State of the run."""


class MethodsResponse(TypedDict):
    """One page of methods."""
    methods: List[MethodEntry]
    """Methods, sorted by name."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class MetricAlignment(TypedDict):
    """Agreement of a metric with annotators."""
    agreement: NotRequired[Optional[float]]
    """Share of the pairs with a preference in which the metric has the same preference; its ties count half. Null if no
    pair has a preference.
    """
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of tau's 95 % confidence interval, clustered by identity."""
    metric: str
    """Code of the metric."""
    no_interval: NotRequired[Optional[NoInterval]]
    no_tau: NotRequired[Optional[NoCoefficient]]
    pairs: int
    """Pairs in which both images have a score."""
    tau: NotRequired[Optional[float]]
    """Kendall's tau-b over these pairs, oriented so that better is higher: 1 for full agreement, 0 for chance."""
    version: int
    """Version of the metric's definition."""


class MetricDistribution(TypedDict):
    """Distribution of the scores of one metric over a run, as measured: no penalty is applied."""
    counts: List[int]
    """Number of samples in each of the equally wide bins from `least` to `most`. Each bin includes its lower end; the
    last one also its upper end. One bin if all numbers are equal.
    """
    least: float
    """Smallest number."""
    median: float
    """Median: half of the numbers are below it."""
    metric: str
    """Code of the metric."""
    most: float
    """Largest number."""
    n: int
    """Number of samples with a number."""
    q1: float
    """First quartile: a quarter of the numbers are below it."""
    q3: float
    """Third quartile."""
    version: int
    """Version of the metric's definition."""


class MetricDrift(TypedDict):
    """One metric's drift. Differences are this pack's score minus the other's."""
    bias: NotRequired[Optional[float]]
    """Mean of the differences."""
    metric: str
    """Code of the metric."""
    n: int
    """Number of samples with a number from both packs."""
    nulls: List[NullDifference]
    """Samples with a number from only one pack, or null from both for different reasons."""
    spearman: NotRequired[Optional[float]]
    """Spearman's rank correlation of the scores; null for fewer than two samples, or if one pack's scores are all
    equal.
    """
    spread: NotRequired[Optional[float]]
    """Standard deviation of the differences, with n − 1 in the denominator."""
    version: int
    """The metric's version."""
    worst: NotRequired[Optional[Worst]]


class MetricEntry(TypedDict):
    """One metric."""
    available: bool
    """True if the loaded pack can compute the metric."""
    code: str
    """Code used in requests and responses."""
    definition: str
    """Definition of the score."""
    direction: Direction
    """The better end of the scale."""
    failure_modes: List[str]
    """Cases in which the number misleads."""
    family: Family
    """What the metric compares with what."""
    interpretation: str
    """How to interpret a value or a difference."""
    licence: str
    """Licence of the official weights, if their authors state one."""
    maximum: NotRequired[Optional[float]]
    """Largest possible value; null where unbounded."""
    minimum: NotRequired[Optional[float]]
    """Smallest possible value; null where unbounded."""
    missing_graphs: NotRequired[List[str]]
    """Graphs that the metric needs and the loaded pack lacks."""
    name: str
    """Name in a word or two, for tables."""
    needs: List[Need]
    """Features from which the metric is computed."""
    short: str
    """Abbreviation as in papers."""
    source: str
    """Publication or code that defines the metric."""
    title: str
    """Name for people."""
    version: int
    """Version of the definition; scores of different versions are never averaged."""


class MetricFirstPlaces(TypedDict):
    """First places by one metric."""
    clusters: int
    """Identities among them; a prompt without an identity counts as one."""
    few_clusters: bool
    """Whether there are fewer than 8 clusters, so that intervals are based on little data."""
    metric: str
    """Code of the metric."""
    prompts: int
    """Prompts for which all runs have a number."""
    shared: int
    """Prompts among them in which several runs share the first place."""
    shares: List[FirstPlaceShare]
    """The share of each run, in the order of the runs."""
    version: int
    """Version of the metric's definition."""


class MetricNumbers(TypedDict):
    """The numbers of one metric over some samples."""
    coverage: float
    """Share of the measured samples that have a number."""
    high: NotRequired[Optional[float]]
    """Upper end of the interval."""
    low: NotRequired[Optional[float]]
    """Lower end of the mean's 95 % interval, by identity; null while pending, and below two identities."""
    mean: NotRequired[Optional[float]]
    """Mean of the numbers; null if `n` is 0. For `aps` it is the mean share of correct predictions (`sample_mean` in a
    run's report), not the area under the ROC curve, which is defined for a whole run only.
    """
    n: int
    """Number of samples with a number."""
    no_interval: NotRequired[Optional[NoInterval]]
    nulls: int
    """Number of measured samples without a number."""
    std: NotRequired[Optional[float]]
    """Standard deviation of the numbers (ddof 1); null if `n` is below 2."""
    version: int
    """Version of the metric's definition."""


class MetricsResponse(TypedDict):
    """All metrics."""
    metrics: List[MetricEntry]
    """Metrics in the order of the documentation."""
    pack: PackId
    """The loaded model pack."""


class ModelsResponse(TypedDict):
    """The resident graphs."""
    batching: Batching
    """How many rows the runs of graphs have."""
    drift: NotRequired[Optional[DriftCertificate]]
    generator: NotRequired[Optional[GeneratorModels]]
    lanes: List[LaneStatus]
    """One entry for each graph of the pack."""
    pack: PackId
    """The loaded model pack."""
    state: Residency
    """Whether the graphs are loaded."""
    threads: int
    """Threads of each run."""


class Need(TypedDict):
    """A feature that a metric reads: the output of a graph for a part of the sample."""
    graph: str
    """Role of the graph in the pack."""
    of: Subject
    """Part of the sample that the graph is run on."""


class NewAnswer(TypedDict):
    """An answer to record."""
    annotator: str
    """Name of the annotator."""
    choice: str
    """The position of the chosen image in the order in which they were shown, from `1` on, or `tie` or `cannot_tell` if
    the study has it.
    """
    item: int
    """Position of the item."""
    question: NotRequired[Optional[str]]
    """The question. Default: the first one of the study."""


class NewExclusion(TypedDict):
    """Why an annotator is left out."""
    reason: str
    """The reason, which results and exports show."""


class NewMethod(TypedDict):
    """A method to create or to describe."""
    card: NotRequired[Optional[MethodCard]]
    description: NotRequired[Optional[str]]
    """Description of the method. If it is omitted, an earlier description remains."""
    name: str
    """Name of the method, shown on leaderboards."""


class NewPreferences(TypedDict):
    """Preferences to record."""
    preferences: List[PreferenceEntry]
    """1 to 10,000 preferences."""


class NewRun(TypedDict):
    """A run to create."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    flags: NotRequired[RunFlags]
    """Facts about the method's training that matter for comparisons."""
    method: str
    """Name of the method; created if it does not exist."""
    metrics: NotRequired[Optional[List[str]]]
    """Codes of the metrics that are computed. Default: all."""
    run: NotRequired[Optional[str]]
    """Name of the run, unique within its method. Default: `default`."""
    settings: NotRequired[Dict[str, Any]]
    """Settings of the generator, any object."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""


class NewState(TypedDict):
    """The new state of a study."""
    state: StudyState
    """`open` begins to ask annotators, `closed` ends it."""


class NextEntry(TypedDict):
    """A pair of images to put to annotators."""
    expected: float
    """Estimated probability that A is preferred."""
    gain: float
    """Expected information of one more vote: p(1 − p) / (1 + judged), at most 0.25."""
    image_a: NotRequired[Optional[str]]
    """BLAKE3 hash of the file of A's image; null if only scores were imported."""
    image_b: NotRequired[Optional[str]]
    """BLAKE3 hash of the file of B's image."""
    judged: int
    """Number of votes about the two methods so far, also in studies."""
    method_a: str
    """First method."""
    method_b: str
    """Second method."""
    name: str
    """Name of the sample in both runs."""
    photos: List[str]
    """BLAKE3 hashes of the photos of the person: the reference images, then the auxiliary ones."""
    prompt: NotRequired[Optional[str]]
    """The prompt of the images."""
    purpose: Purpose
    """Why it is put to an annotator."""
    run_a: str
    """Newest run of the first method."""
    run_b: str
    """Newest run of the second method."""
    show_first: Side
    """Image to show first (on the left): random, but always the same for an annotator and a pair. A repeat shows the
    other one first.
    """


class NextResponse(TypedDict):
    """Pairs to label next."""
    answered: NotRequired[Optional[int]]
    """Number of answers of the annotator to this question so far, with "cannot tell" and repeats."""
    pairs: List[NextEntry]
    """Pairs of images without a vote on this question outside studies, those of the most informative pairs of methods
    first. With `annotator`, in the order in which the annotator should be asked.
    """
    question: QuestionWord
    """The question."""


NoAlpha = Literal["nothing_shared", "no_variation"]
"""Reason if there is no alpha."""


NoCoefficient = Literal["too_few_samples", "constant"]
"""Reason if two series have no coefficient."""


NoConsistency = Literal["faces_not_stored", "no_face", "one_photo", "too_many_photos"]
"""Reason for a person without consistency."""


NoFirstPlaces = Literal["too_few_runs", "no_common_prompts", "no_scores"]
"""Reason if there are no shares."""


NoInterval = Literal["too_few_people", "too_few_prompts", "too_few_shared", "no_variation", "pending", "declared"]
"""Reason if a number has no interval."""


NoSwap = Literal["no_swapped_photos", "no_scores"]
"""Reason if no photo was swapped."""


NotComparable = Literal[
    "other_statistic",
    "other_definition",
    "depends_on_batch",
    "other_penalty",
    "other_samples",
    "other_weights",
    "nothing_measured",
]
"""Reason why a published number does not compare with the numbers measured here."""


class NullDifference(TypedDict):
    """Samples whose score is null with one pack only, or null for different reasons."""
    n: int
    """Number of samples."""
    reason: NotRequired[Optional[str]]
    """Reason for null with this pack; null if there is a number."""
    reason_against: NotRequired[Optional[str]]
    """Reason for null with the other pack; null if there is a number."""
    samples: List[str]
    """Names of the first samples, at most 10."""


NullReason = Literal[
    "no_prompt",
    "no_reference",
    "no_face_in_reference",
    "no_face_in_image",
    "no_other_photo",
    "no_face_in_other_photo",
    "no_detectables",
    "no_relations",
    "no_mapped_relations",
    "needs_dataset",
    "no_attributes",
    "unavailable",
]
"""Reason why a score is null. It is never expressed as a number."""


class ObjectEvidence(TypedDict):
    """An object of the prompt and its score in the image."""
    box: NotRequired[Optional[List[float]]]
    """Left, top, right, bottom of the best box in pixels of the upright image."""
    label: str
    """The label as given."""
    score: NotRequired[Optional[float]]
    """In [0, 1]; 0 if every box fits another label better; null if the label was skipped."""
    skipped: NotRequired[Optional[SkipReason]]
    truncated: NotRequired[bool]
    """True if the text model truncated the label."""


OnNull = Literal["skip", "zero", "fail"]
"""Meaning of a null reward in a combination."""


Origin = Literal["cached", "shared", "computed"]
"""Origin of a feature."""


Outcome = Literal["created", "repeated", "rescored"]
"""Effect of storing the sample."""


class OutlierEntry(TypedDict):
    """A photo that does not look like its person."""
    closer_to: str
    """The person whom the photo is more like."""
    image: str
    """BLAKE3 hash of the photo's file."""
    name: str
    """Name of the photo among those of its person."""
    similarity: NotRequired[Optional[float]]
    """Mean similarity to the person's other photos."""


class Paper(TypedDict):
    """A paper. At least one of the two is set."""
    title: NotRequired[Optional[str]]
    """Title."""
    url: NotRequired[Optional[str]]
    """Address, `http` or `https`."""


class PeopleFirstPlaces(TypedDict):
    """First choices of people."""
    answers: int
    """Answers about images of these runs only."""
    chance: float
    """Mean of 1/k over the answers, where k is the number of images shown: the share of a run that is as good as the
    others.
    """
    prompts: int
    """Prompts with an answer."""
    shares: List[FirstPlaceShare]
    """The share of each run, in the order of the runs."""
    ties: int
    """Answers without a preference, which are a part of a choice of each image."""


class PersonEntry(TypedDict):
    """The photos of a person."""
    consistency: NotRequired[Optional[float]]
    """Mean similarity of the photos to the person's other photos: each is compared with the others as `ips` compares an
    image with reference images. 1 for equal faces.
    """
    disagreement: NotRequired[Optional[Disagreement]]
    identity: str
    """The person."""
    lowest: NotRequired[Optional[float]]
    """Similarity of the photo that is least like the others."""
    lowest_photo: NotRequired[Optional[str]]
    """Name of that photo."""
    outliers: List[OutlierEntry]
    """Photos that are more like another person than like this person's other photos."""
    photos: int
    """Number of enrolled photos."""
    reason: NotRequired[Optional[NoConsistency]]
    unknown: int
    """Number of photos whose faces are not stored, or were found by another pack."""
    with_face: int
    """Number of photos in which the loaded pack finds a face."""


class PhotoEntry(TypedDict):
    """An enrolled photo."""
    attributes: Dict[str, bool]
    """Facial attributes by CelebA name; `true` if present."""
    created: str
    """Time at which it was enrolled."""
    faces: NotRequired[Optional[int]]
    """Number of faces that the loaded pack finds; null if it was enrolled with another pack."""
    identity: str
    """The identity that the photo shows."""
    image: str
    """BLAKE3 hash of the photo's file."""
    name: str
    """Name of the photo among those of its identity."""


class PhotoForm(TypedDict):
    """The form of `POST /v1/datasets/{dataset}/photos`."""
    metadata: PhotoMetadata
    """The photo's identity, name and labels, as JSON."""
    photo: bytes
    """The photo: PNG, JPEG, WebP or PPM."""


class PhotoMetadata(TypedDict):
    """The identity, name and labels of a photo."""
    attributes: NotRequired[Dict[str, bool]]
    """Facial attributes by CelebA name; `true` if present."""
    identity: str
    """The identity that the photo shows."""
    name: str
    """Name of the photo among those of its identity."""


class PhotoSwap(TypedDict):
    """Spread of scores when photos are swapped."""
    groups: int
    """Groups: people and prompts with at least two different photos."""
    groups_with_repeats: int
    """Groups with several samples of one photo, by which photo and other causes are told apart."""
    metrics: List[SwappedMetric]
    """One entry per metric with a direction, in the order of the registry."""
    no_swap: NotRequired[Optional[NoSwap]]
    people: int
    """People in these groups."""
    samples: int
    """Samples in these groups."""


class PhotoSwapResponse(PhotoSwap):
    """Spread of scores when photos are swapped."""
    pack: PackId
    """The pack of the scores."""
    runs: List[ComparedRun]
    """The runs."""


class Place(TypedDict):
    """Place of a score among the scores of a population."""
    better_than: NotRequired[Optional[float]]
    """Percent of the population's scores that are worse, including half of the equal ones; null for metrics without a
    direction.
    """
    percentile: float
    """Percent of the population's scores below this one, including half of the equal ones."""
    population: int
    """Number of scores in the population."""


Policy = Literal["stellar", "toolkit", "none"]
"""Penalty policy for samples whose image does not follow the prompt."""


Precision = Literal["fp32", "fp16", "int8"]
"""Precision of a graph's arithmetic."""


class PreferenceEntry(TypedDict):
    """A preference: a vote with `run_a`, `run_b` and `preferred`, or a rating with `run` and `rating`."""
    annotator: str
    """Name of the annotator; any name that distinguishes annotators."""
    name: str
    """Name of the sample in the run, or in both runs."""
    preferred: NotRequired[Optional[Choice]]
    question: QuestionWord
    """The question put to the annotator."""
    rating: NotRequired[Optional[float]]
    """The rating; higher is better. Any scale is allowed if it is the same for all ratings of an annotator."""
    repeat: NotRequired[Optional[bool]]
    """True if the annotator was asked about the pair a second time, to measure consistency. The vote is stored, and no
    analysis of preferences counts it. Default: false.
    """
    run: NotRequired[Optional[str]]
    """Run of a rating."""
    run_a: NotRequired[Optional[str]]
    """First run of a vote."""
    run_b: NotRequired[Optional[str]]
    """Second run of a vote."""
    shown_first: NotRequired[Optional[Side]]


class PreferencesPage(TypedDict):
    """One page of preferences."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""
    preferences: List[StoredPreference]
    """Preferences in the order in which they were recorded."""


class PreferencesResponse(MethodPreferences):
    """The preferred methods."""
    agreement: AnnotatorAgreement
    """Agreement of annotators with each other."""
    answers: int
    """Number of preferences."""
    question: QuestionWord
    """The question put to annotators."""
    voting: NotRequired[Voting]
    """How often annotators repeat their own answer, and whether the position of an image matters."""


class PreferredShare(TypedDict):
    """Share of a user study's answers that prefer a method."""
    method: NotRequired[Optional[str]]
    """The method; null for the next best one, which is not named."""
    share: float
    """The share, in [0, 1]."""


class Problem(TypedDict):
    """The body of every error response (RFC 9457)."""
    checks: NotRequired[List[Check]]
    """All checks, in responses of `/readyz` and `/startupz`."""
    code: Code
    """Machine-readable code."""
    detail: str
    """Explanation of what is wrong with this request and what to do about it."""
    request_id: str
    """Id of this request in the log."""
    status: int
    """HTTP status."""
    title: str
    """Title of the code, for people."""
    type: str
    """URN of the code."""


class ProgressEvent(TypedDict):
    """Data of an event in the progress stream of a run."""
    counts: Counts
    """Number of samples by state."""
    held: NotRequired[Optional[Blocked]]
    state: RunState
    """State of the run."""


class StudyResponse(TypedDict):
    """A study."""
    created: str
    """Time of creation."""
    id: str
    """Id of the study."""
    images: int
    """Number of images of an item."""
    plan: StudyPlan
    """What it asks."""
    state: StudyState
    """Its state."""


class ProgressResponse(StudyResponse):
    """A study with its progress."""
    annotators: List[AnnotatorProgress]
    """Answers of each annotator, by name: at most 1000."""
    items: int
    """Number of items, without gold items."""
    questions: List[QuestionProgress]
    """Progress by question, in the order in which they are asked."""


class Prompt(TypedDict):
    """A prompt for one identity."""
    categories: NotRequired[List[str]]
    """Categories of the prompt, for slices of the leaderboard."""
    detectables: NotRequired[List[str]]
    """Objects that the prompt names, in words."""
    identity: str
    """The identity that it is for."""
    kind: NotRequired[Optional[str]]
    """A free label; Stellar uses `T` and `H`."""
    prompt: str
    """The prompt as written; `{}` stands for the person."""
    relations: NotRequired[List[List[str]]]
    """Relations that the prompt names, as subject, predicate, object."""


class PromptSelection(TypedDict):
    """The prompts of a study: samples of the same name in all of its runs."""
    dataset: NotRequired[Optional[str]]
    """Dataset that all runs must be over."""
    kind: NotRequired[Optional[str]]
    """Only prompts of this kind (`metadata.prompt_kind`)."""
    names: NotRequired[Optional[List[str]]]
    """Only samples of these names. Default: all that the runs have in common."""
    people: NotRequired[Optional[List[str]]]
    """Only these people (`metadata.identity`). Default: all."""
    sample: NotRequired[Optional[int]]
    """Number of prompts to draw at random, by the seed of the study. Default: all."""
    split: NotRequired[Optional[str]]
    """Split that all runs must be over."""


class PromptsBody(TypedDict):
    """Prompts to register."""
    prompts: List[Prompt]
    """At most 1000; split larger sets over several requests."""
    redistributable: NotRequired[Optional[bool]]
    """Whether the photos of the dataset may be shown to others. Default: unchanged, and false for a new dataset."""


class PromptsResponse(TypedDict):
    """One page of prompts."""
    items: List[Prompt]
    """Prompts by identity, and within it in the order of registration."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class Proportion(TypedDict):
    """A share with its interval."""
    count: int
    """Numerator."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval (Wilson), which assumes that votes are independent."""
    of: int
    """Denominator."""
    share: NotRequired[Optional[float]]
    """`count / of`; null if `of` is 0."""


class Provenance(TypedDict):
    """Pack, graphs and versions behind the scores."""
    dataset: NotRequired[Optional[DatasetSource]]
    graphs: Dict[str, GraphSource]
    """The checkpoint of every graph that was used, by role."""
    metric_versions: Dict[str, int]
    """Version of each metric's definition, by code."""
    pack: PackId
    """The model pack."""
    service_version: str
    """Version of the service."""


Provider = Literal["cpu", "cuda", "tensorrt"]
"""An execution provider of ONNX Runtime."""


class PublishedCell(TypedDict):
    """A published number."""
    comparable: bool
    """Whether it compares with the measured numbers of the same metric on this page. The source does not say which
    checkpoints stand behind it, so that even then small differences mean little.
    """
    explanation: NotRequired[Optional[str]]
    """The reason in words."""
    mean: float
    """The number."""
    reason: NotRequired[Optional[NotComparable]]


class PublishedFigure(TypedDict):
    """A figure that the authors of a dataset published, beside the one found."""
    found: NotRequired[Optional[int]]
    """The number found; null if no prompt is of this kind."""
    kind: str
    """Kind of the prompts."""
    published: int
    """The published number."""
    quantity: Quantity
    """The quantity whose number of different ones was published."""


class PublishedRow(TypedDict):
    """A published row."""
    dataset: str
    """The dataset."""
    flags: Dict[str, bool]
    """The flags that a run of the method would declare here."""
    method: str
    """The method."""
    metrics: Dict[str, PublishedCell]
    """Means by metric code. The published `aps` is an area under the ROC curve, so it is there twice: as `aps`, which
    it does not compare with, and as `aps_area`, which is the `area` of measured rows.
    """


class PublishedTau(TypedDict):
    """Published correlations."""
    source: str
    """Source of the correlations."""
    tau: Dict[str, float]
    """Kendall's tau by code of the metric."""


Purpose = Literal["new", "shared", "repeat"]
"""Why a pair is put to an annotator."""


Quantity = Literal["words", "tokens", "verbs", "prepositions", "detectables"]
"""A quantity of prompts."""


class QuantityStatistics(TypedDict):
    """One quantity of the prompts of one kind."""
    distinct: NotRequired[Optional[int]]
    """Number of different ones, without regard to case. Null for tokens, and if there are too many to count."""
    per_person: Spread
    """Spread over people, of the sum over each person's prompts."""
    per_prompt: Spread
    """Spread over prompts."""
    quantity: Quantity
    """The quantity."""


class QuestionProgress(TypedDict):
    """Progress of one question."""
    answers: int
    """Answers so far, without those of annotators who are left out and about gold items."""
    complete_items: int
    """Items with all wanted answers."""
    question: str
    """The question."""
    wanted: int
    """Wanted answers: items × answers per item."""


QuestionWord = str
"""The question put to annotators: `overall`, which is better overall; `object`, are the objects of the prompt present;
`relation`, are its relations right; `identity`, which is more like the person; or a question that the operator
configured in `analysis.questions`.
"""


RankedOrder = Literal["best", "worst"]
"""Order of samples by a metric."""


class RankedResponse(TypedDict):
    """Samples of a run in the order of a metric."""
    metric: str
    """Code of the metric."""
    pack: NotRequired[Optional[PackId]]
    run_id: str
    """Id of the run."""
    samples: List[RankedSample]
    """The samples with a number; those without one are left out."""


class RankedSample(SampleBrief):
    """A sample with its score."""
    name: str
    """Name of the sample in the run."""
    value: float
    """The score, as measured: no penalty is applied."""


class Reference(TypedDict):
    """Results published by others, not measured by this service."""
    note: str
    """How the results must be read."""
    rows: List[PublishedRow]
    """The published rows."""
    source: str
    """Source of the results."""
    user_study: UserStudy
    """The user study of the source."""


class RegisteredResponse(TypedDict):
    """Outcome of a registration."""
    changed: int
    """Number of prompts that existed with another kind or other properties, which were replaced."""
    created: int
    """Number of new prompts."""
    repeated: int
    """Number of prompts that existed unchanged."""


class RelationEvidence(TypedDict):
    """A relation of the prompt and its score in the image."""
    approximate: NotRequired[bool]
    """True if these predicates only approximate the one in the prompt."""
    classes: List[str]
    """Classes of the scene graph that count as the object. If empty, the object is found by its words alone."""
    factors: NotRequired[Optional[Factors]]
    grounding: NotRequired[Optional[GroundingEvidence]]
    kind: RelationKind
    """`interaction` if a verb is involved, else `location`."""
    nearest: NotRequired[Optional[float]]
    """Cosine similarity of the text embeddings by which the predicate was mapped, if no table lists it."""
    object: str
    """Object of the relation."""
    object_box: NotRequired[Optional[List[float]]]
    """Box of the object in the best pair."""
    predicate: str
    """A verb, a preposition, or a verb with its preposition."""
    score: NotRequired[Optional[float]]
    """Product of the factors, in [0, 1]; null if the relation was not scored."""
    seen_as: List[str]
    """Predicates of the scene graph that count as this predicate."""
    source: RelationSource
    """Source of the relation."""
    strict: NotRequired[Optional[float]]
    """Score with the predicate that the graph has under exactly this name; null if it has none."""
    subject: str
    """Subject of the relation; always `person` if it was parsed from the prompt."""
    subject_box: NotRequired[Optional[List[float]]]
    """Box of the person in the best pair: left, top, right, bottom in pixels of the upright image."""
    truncated: NotRequired[bool]
    """True if OWL-ViT truncated the object's words."""
    unmapped: NotRequired[Optional[Unmapped]]


RelationKind = Literal["interaction", "location"]
"""Kind of a relation."""


RelationSource = Literal["annotation", "parsed", "implied"]
"""Source of a relation."""


class ReportResponse(TypedDict):
    """The table of a run."""
    counts: Counts
    """Number of samples by state."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    method: str
    """Method of the run."""
    pack: NotRequired[Optional[PackId]]
    penalised: NotRequired[Optional[int]]
    """Number of penalised samples; null under the policy `none`, and if the policy concerns no metric."""
    policy: Policy
    """The penalty policy that was applied."""
    rows: List[Line]
    """One row for each metric, sorted by code."""
    run: str
    """Name of the run, unique within its method."""
    run_id: str
    """Id of the run."""
    sample_set: str
    """Identifies these samples: tables with the same value are over the same samples."""
    samples: int
    """Number of samples in the table."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""
    state: RunState
    """State of the run. Until it is finished, `aps` is missing and the other metrics cover the samples scored so far.
    """
    undecided: int
    """Number of samples for which the penalty cannot be decided because `clip_t` or `clip_n` is missing."""


Residency = Literal["resident", "offloading", "offloaded", "loading", "elsewhere"]
"""Whether the graphs are loaded."""


class StudyResults(TypedDict):
    """Results for one question of a study."""
    agreement: StudyAgreement
    """Agreement of annotators."""
    annotators: int
    """Annotators with a counted answer."""
    answers: int
    """Counted answers: those of annotators who are left out, about gold items, and "cannot tell" are none."""
    cannot_tell: int
    """Answers "cannot tell", which count for no image."""
    chance: float
    """First-choice share of a method that is as good as the others: 1/k."""
    differences: List[StudyDifference]
    """Methods that follow each other in the order of their strengths."""
    methods: List[StudyMethod]
    """The methods, best first."""
    no_strengths: NotRequired[Optional[str]]
    """Reason for missing strengths."""
    penalised: bool
    """Whether half a win was added to each side of every two methods that were shown together, because some never lost
    or never won.
    """
    positions: List[Proportion]
    """Choices by the position of the chosen image, from the first position on. The Wilson intervals treat answers as
    independent. Without a habit, all shares are about 1/k.
    """
    prompts: int
    """Prompts with a counted answer."""
    ties: int
    """Ties among them."""


class ResultsResponse(StudyResults):
    """Results of a study for one question."""
    left_out: List[LeftOutAnnotator]
    """Annotators whose answers are left out, with the reasons."""
    question: str
    """The question."""
    study: StudyResponse
    """The study."""


class RewardProvenance(TypedDict):
    """Pack and definitions behind rewards."""
    batching: Batching
    """Whether the number of images that ran together may change a reward's last bits (`engine.batching`)."""
    metrics: Dict[str, int]
    """Version of each reward's metric, by name of the reward."""
    pack: PackId
    """The model pack."""
    scales: Dict[str, str]
    """Formula of each reward with a scale, by name; `s` is the metric's score."""


class RewardTimings(TypedDict):
    """Milliseconds spent on a request."""
    read_ms: float
    """Reading and checking the body."""
    score_ms: float
    """Scoring all items."""
    total_ms: float
    """The whole request."""
    wait_ms: float
    """Waiting for the first item's turn."""


class RewardsForm(TypedDict):
    """The form of `POST /v1/rewards`. Each image is a further part, under the name by which an item of the document
    calls it: `{"part": "photo"}`.
    """
    request: RewardsRequest
    """The batch, as JSON."""


class RewardsRequest(TypedDict):
    """A batch of images to be rewarded."""
    combine: NotRequired[Optional[Combination]]
    items: List[Item]
    """The items."""
    rewards: List[str]
    """`metric` or `metric@scale`, 1 to 64 of them."""
    statistics: NotRequired[bool]
    """If true, statistics of each group: of the combination, or else of the only reward."""


class RewardsResponse(TypedDict):
    """Rewards in columns, in the order of the items."""
    combined: NotRequired[Optional[List[Optional[float]]]]
    """The combination of each item, if requested."""
    errors: Dict[str, ItemError]
    """Items that could not be scored at all, by position. Their rewards are null."""
    flags: Dict[str, Dict[str, List[Flag]]]
    """Flags that a reader of a number must know, such as `no_face_in_image` beside a 0, by name and position of the
    item.
    """
    groups: NotRequired[Optional[Dict[str, GroupStatistics]]]
    """Statistics of each group, if requested."""
    provenance: RewardProvenance
    """Pack and definitions behind the numbers."""
    reasons: Dict[str, Dict[str, NullReason]]
    """Why rewards are null, by name and position of the item."""
    rewards: Dict[str, List[Optional[float]]]
    """Every requested reward by name: a number for each item, or null."""
    timings: RewardTimings
    """Time spent on the request."""


RewardsTensors = bytes
"""A safetensors file: the batch as JSON in `__metadata__.request`, and 8-bit pixels in tensors `images`, `references`
and `auxiliary` of shape `[N, H, W, 3]`, or `images.0` of `[H, W, 3]`.
"""


class Row(TypedDict):
    """A method or run with one pack: scores of different packs are never averaged or ranked together."""
    comparable: NotRequired[Optional[bool]]
    """True if the row is over the samples that most rows of its pack are over. Only rows with the same `sample_set` are
    ranked against each other: means over different samples are not comparable. Null until the row's runs are
    summarised.
    """
    flags: Dict[str, bool]
    """Flags declared by any of these runs."""
    mean_rank: NotRequired[Optional[float]]
    """Mean of the row's places in all metrics that rank, among rows with the same `sample_set`; a metric without a
    number counts as the last place. Null if no metric that ranks has a number.
    """
    method: str
    """The method."""
    metrics: Dict[str, Summary]
    """Summaries of the metrics, by code."""
    pack: PackId
    """The pack of all scores in the row. With the weights `demo` the scores are meaningless."""
    run: NotRequired[Optional[str]]
    """Name of the run, if rows are runs."""
    runs: List[str]
    """Ids of the runs that the row covers."""
    sample_set: NotRequired[Optional[str]]
    """Identifies the row's samples: rows with the same value are over the same samples. Null until the row's runs are
    summarised, which takes seconds.
    """


class RunFlags(TypedDict):
    """Facts that a run declares about its generator's training, for readers of a leaderboard."""
    cross_validated_training: NotRequired[bool]
    """The generator was trained with cross validation over the evaluated identities."""
    trained_on_evaluation_photos: NotRequired[bool]
    """The generator was trained on the photos that it is evaluated with."""


RunOrder = Literal["oldest", "newest"]
"""Order of runs by creation, first to last."""


class RunResponse(TypedDict):
    """A run."""
    counts: Counts
    """Number of samples by state."""
    created: str
    """Time at which it was created."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    finished: NotRequired[Optional[str]]
    """Time at which it was finished."""
    flags: RunFlags
    """Facts about the method's training that matter for comparisons."""
    held: NotRequired[Optional[Blocked]]
    method: str
    """Method of the run."""
    metrics: NotRequired[Optional[List[str]]]
    """Codes of the metrics that are computed for its samples; null for all."""
    pack: NotRequired[Optional[PackId]]
    run: str
    """Name of the run, unique within its method."""
    run_id: str
    """Id of the run."""
    service_version: NotRequired[Optional[str]]
    """Version of the service that accepted its first sample."""
    settings: Dict[str, Any]
    """Settings of the generator."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""
    state: RunState
    """State of the run."""
    submission: NotRequired[Optional[RunSubmission]]


class RunSampleForm(TypedDict):
    """The form of `PUT /v1/runs/{id}/samples/{name}`."""
    auxiliary: NotRequired[Optional[List[bytes]]]
    """Auxiliary images: further images of the same person; repeat the field for several."""
    auxiliary_hash: NotRequired[Optional[List[str]]]
    """Like `reference_hash`, for auxiliary images."""
    image: bytes
    """The generated image: PNG, JPEG, WebP or PPM."""
    metadata: NotRequired[Optional[Metadata]]
    prompt: NotRequired[Optional[str]]
    """The prompt that the image was generated from, used as sent: placeholders are not filled in."""
    reference: NotRequired[Optional[List[bytes]]]
    """Reference images, which the generator was given; repeat the field for several."""
    reference_hash: NotRequired[Optional[List[str]]]
    """BLAKE3 hash of an image that the run already has, instead of its file: 64 hexadecimal digits."""


RunState = Literal["open", "finishing", "finished"]
"""State of a run."""


class RunSubmission(TypedDict):
    """The verified submission that a run is from."""
    digest: str
    """Digest of its bundle."""
    id: str
    """Id of the submission."""
    verified: str
    """Time of its verification."""


class RunsResponse(TypedDict):
    """One page of runs."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""
    runs: List[RunResponse]
    """Runs in the requested order."""


class SampleEntry(TypedDict):
    """The predictions for one sample."""
    id: str
    """Id of the sample."""
    name: str
    """Name of the sample in its run."""
    predictions: List[AttributePrediction]
    """One prediction for each attribute."""
    value: NotRequired[Optional[float]]
    """Share of the attributes that are predicted correctly; null if none counts."""


class SampleResponse(TypedDict):
    """A stored sample."""
    auxiliary: List[str]
    """BLAKE3 hashes of the files of the auxiliary images."""
    content: str
    """BLAKE3 hash of all inputs together."""
    created: str
    """Time at which it was recorded."""
    evidence: NotRequired[Optional[List[StoredEvidence]]]
    """Evidence behind the scores, one entry a pack, if requested. Empty if none was stored or it has expired
    (`store.evidence_retention_days`). It never has embeddings, and numbers have six digits.
    """
    id: str
    """Id of the sample."""
    image: NotRequired[Optional[StoredImage]]
    metadata: Any
    """Metadata of the sample."""
    method: NotRequired[Optional[str]]
    """Method that the sample belongs to, if any."""
    name: str
    """Name of the sample in the run."""
    prompt: NotRequired[Optional[str]]
    """The prompt that the image was generated from."""
    references: List[str]
    """BLAKE3 hashes of the files of the reference images."""
    run: NotRequired[Optional[str]]
    """Name of the method's run."""
    run_id: NotRequired[Optional[str]]
    """Id of the run."""
    scores: List[StoredScore]
    """Scores of all packs that scored the sample."""


class SampleSizeResponse(TypedDict):
    """The answers that a study needs."""
    answers: int
    """Answers that are needed, to each question."""
    chance: float
    """Share without a difference."""
    cost: NotRequired[Optional[float]]
    """Price of all answers."""
    design_effect: float
    """Factor for several answers about one item: 1 + (answers per item − 1) · correlation."""
    formula: str
    """The formula, with its source."""
    independent_answers: int
    """Answers if all of them were independent."""
    informative: float
    """Part of the answers that say something about it: 1 for a share; for a difference, those in which one of the two
    methods is chosen.
    """
    items: int
    """Items that are needed."""
    minutes: NotRequired[Optional[float]]
    """Time of all answers in minutes."""
    share: float
    """Share that is to be told from it."""


SampleState = Literal["pending", "scored", "failed"]
"""State of an accepted sample."""


Samples = Literal["all", "common"]
"""Samples that a row of the leaderboard is based on."""


class ScoreEntry(TypedDict):
    """A score: a number, or null with a reason."""
    flags: NotRequired[List[Flag]]
    """Flags that a reader of the number must know."""
    help: NotRequired[Optional[str]]
    """Advice on what to send or load to get a number."""
    reason: NotRequired[Optional[NullReason]]
    value: NotRequired[Optional[float]]
    """The score; null if it cannot be computed."""


class ScoreForm(TypedDict):
    """The form of `POST /v1/score`."""
    auxiliary: NotRequired[Optional[List[bytes]]]
    """Auxiliary images: further images of the same person; repeat the field for several."""
    evidence: NotRequired[Optional[bool]]
    """If true, the response includes the evidence behind the scores. Default: false."""
    image: bytes
    """The generated image: PNG, JPEG, WebP or PPM."""
    metadata: NotRequired[Optional[Metadata]]
    method: NotRequired[Optional[str]]
    """Name of the method; the sample counts on its leaderboard row."""
    metrics: NotRequired[Optional[str]]
    """Codes of the metrics to compute, separated by commas. Default: all."""
    name: NotRequired[Optional[str]]
    """Name of the sample in its run. The same name with the same content counts once. Default: the content hash."""
    prompt: NotRequired[Optional[str]]
    """The prompt that the image was generated from, used as sent: placeholders are not filled in."""
    reference: NotRequired[Optional[List[bytes]]]
    """Reference images, which the generator was given; repeat the field for several."""
    run: NotRequired[Optional[str]]
    """Name of the method's run. Default: `default`."""


class ScoreResponse(TypedDict):
    """The scores of one sample."""
    cached: bool
    """True if no model ran because every feature was cached."""
    evidence: NotRequired[Optional[Evidence]]
    features: List[FeatureUse]
    """Features behind the scores, with the origin of each in this request, even if the scores are those of an earlier
    request.
    """
    method: NotRequired[Optional[str]]
    """Method that the sample belongs to, if any."""
    outcome: Outcome
    """The effect of storing the sample."""
    provenance: Provenance
    """Provenance of the scores. For a sample that existed, the versions of the metrics are those of its stored scores.
    """
    run: NotRequired[Optional[str]]
    """Name of the method's run."""
    run_id: NotRequired[Optional[str]]
    """Id of the run, for GET /v1/runs/{id}/attributes and DELETE /v1/runs/{id}."""
    sample: str
    """Id of the stored sample, for GET /v1/samples/{id}."""
    scores: Dict[str, ScoreEntry]
    """Every requested metric, by code."""
    timings: Timings
    """Time spent on the request."""
    weights: Weights
    """`demo` stands for weights that know nothing of real images: their scores are meaningless."""


class SettingValue(TypedDict):
    """A value of a setting."""
    samples: int
    """Number of images with it."""
    value: str
    """The value as text."""


ShareInterval = Literal["wilson", "wilson_over_prompts", "bootstrap"]
"""How the interval of a share was computed."""


Side = Literal["a", "b"]
"""One of the two images of a vote."""


SkipReason = Literal["role", "empty", "duplicate"]
"""Reason why a detectable is skipped."""


class SliceAlignment(TypedDict):
    """Alignment over a slice."""
    kind: str
    """Kind of the slice; empty for all pairs."""
    label: str
    """Label within the kind."""
    metrics: List[MetricAlignment]
    """One entry per metric; metrics without a direction are left out."""
    pairs: int
    """Pairs in the slice."""


class SliceComparison(TypedDict):
    """The comparison over one slice."""
    kind: str
    """Kind of the slice; empty for all pairs."""
    label: str
    """Label within the kind."""
    metrics: List[Difference]
    """One entry per metric."""
    pairs: int
    """Pairs in the slice."""


class SliceDifferences(TypedDict):
    """Comparisons of metrics over a slice."""
    comparisons: int
    """Number of comparisons that p-values are corrected for."""
    kind: str
    """Kind of the slice; empty for all pairs."""
    label: str
    """Label within the kind."""
    metrics: List[TauDifference]
    """The metrics, by tau over the pairs of the comparison; the reference metric comes first."""
    pairs: int
    """Pairs in the slice."""
    reference: NotRequired[Optional[str]]
    """Code of the reference metric: the one that was named, or the one with the largest tau. Null if no metric has a
    tau.
    """


class SliceEntry(TypedDict):
    """A slice."""
    kind: str
    """Kind of the slice; empty for all samples."""
    label: str
    """Label of the slice within its kind."""
    metrics: Dict[str, SliceMetric]
    """Summaries of the metrics, by code."""
    penalised: int
    """Number of penalised samples."""
    samples: int
    """Number of samples in the slice."""
    undecided: int
    """Number of samples for which the penalty cannot be decided."""


class SliceMetric(MetricNumbers):
    """A metric over a slice."""
    clusters: int
    """Number of identities among the samples with a number; a sample without an identity counts as one."""
    face_failure_rate: float
    """Share of the measured samples that have no face."""
    faceless: int
    """Number of samples whose image has no face, for metrics that look for one."""
    few_clusters: bool
    """True if there are fewer than 8 such identities: with skewed scores, the coverage of the interval is then lower
    than stated.
    """


class SlicesResponse(TypedDict):
    """The slices of a run."""
    computed: str
    """Time at which it was summarised."""
    pack: str
    """Digest of the pack."""
    policy: Policy
    """The penalty policy that was applied."""
    run: str
    """Id of the run."""
    samples: int
    """Number of samples of the run when it was summarised."""
    slices: List[SliceEntry]
    """All samples first, then by kind and label."""
    stale: bool
    """True if the run has changed since; it is summarised again within seconds."""


class SourceSpec(TypedDict):
    """The checkpoint that a graph was exported from."""
    checkpoint: str
    """Name of the checkpoint, such as a Hugging Face id."""
    file: NotRequired[Optional[str]]
    """File within the checkpoint."""
    revision: str
    """Commit on the Hugging Face hub, or `local`."""
    sha256: NotRequired[Optional[str]]
    """SHA-256 of that file."""


class Spread(TypedDict):
    """Sum and spread of a quantity over prompts or people."""
    max: int
    """The largest value."""
    mean: float
    """The mean."""
    median: float
    """The median: the mean of the two in the middle if the number is even."""
    total: int
    """The sum."""


Statistic = Literal["sample_mean", "attribute_auc"]
"""Definition of a row's `mean`."""


class StatisticsResponse(TypedDict):
    """Statistics of the prompts of a dataset."""
    dataset: str
    """Name of the dataset."""
    published: List[PublishedFigure]
    """Figures that were published for a dataset of this name, beside those found. They need not be equal: the authors
    may have counted with another tagger.
    """
    statistics: List[KindStatistics]
    """All prompts first, then the 100 kinds with most prompts; empty without prompts."""


class StoredEvidence(Evidence):
    """Stored evidence behind the scores of one pack."""
    pack: str
    """Digest of the pack."""


class StoredImage(TypedDict):
    """Stored properties of a generated image."""
    hash: str
    """BLAKE3 hash of the file."""
    height: int
    """Height in pixels, after orientation."""
    width: int
    """Width in pixels, after orientation."""


class StoredPreference(PreferenceEntry):
    """A stored preference."""
    created: str
    """Time at which it was recorded."""
    id: str
    """Id of the preference."""
    trial: NotRequired[Optional[str]]
    """Id of the answer in a study that the vote is part of: a choice of one out of k images is one answer and k − 1
    votes. It is withdrawn at the study.
    """


class StoredScore(TypedDict):
    """A stored score with its provenance."""
    created: str
    """Time at which it was computed."""
    flags: List[str]
    """Flags that a reader of the number must know."""
    metric: str
    """Code of the metric."""
    metric_version: int
    """Version of the metric's definition."""
    pack: PackId
    """The pack that computed the score."""
    place: NotRequired[Optional[Place]]
    reason: NotRequired[Optional[str]]
    """Reason why the score is null."""
    service_version: str
    """Version of the service that computed it."""
    value: NotRequired[Optional[float]]
    """The score; null if there is none."""


class StudiesResponse(TypedDict):
    """One page of studies."""
    items: List[StudyResponse]
    """Studies, the newest first."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class StudyAgreement(TypedDict):
    """Agreement of annotators about items."""
    alpha: NotRequired[Optional[float]]
    """Krippendorff's alpha, nominal: 1 for perfect agreement, 0 for chance."""
    alpha_high: NotRequired[Optional[float]]
    """Upper end."""
    alpha_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, resampling items."""
    equal: NotRequired[Optional[float]]
    """Share of pairs of answers to the same item that are equal."""
    no_alpha: NotRequired[Optional[NoAlpha]]
    shared: int
    """Items with counted answers of several annotators."""


class StudyDifference(TypedDict):
    """Two methods that follow each other, and what would settle their order."""
    better: str
    """The method with the larger strength."""
    difference: float
    """Difference of their strengths."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, from the spread over prompts."""
    more_answers: NotRequired[Optional[int]]
    """Further answers after which the order would be settled with probability 0.8, if the difference is as measured: n
    ((1.96 + 0.84)² e² / d² − 1), where e is the standard error of the difference d over n answers. Null if it is
    settled or cannot be computed.
    """
    settled: bool
    """Whether the interval is entirely above 0."""
    worse: str
    """The method with the next smaller one."""


StudyForm = Literal["pairs", "best_of"]
"""Form of the items of a study."""


class StudyMethod(TypedDict):
    """A method of a study."""
    chosen: float
    """Those in which its image was chosen; a tie is half of one."""
    method: str
    """The method."""
    no_interval: NotRequired[Optional[NoInterval]]
    run: str
    """Its run."""
    share: NotRequired[Optional[float]]
    """First-choice share: `chosen / shown`; null if it was not shown."""
    share_high: NotRequired[Optional[float]]
    """Upper end."""
    share_interval: NotRequired[Optional[ShareInterval]]
    share_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval; `share_interval` says how it was computed."""
    shown: int
    """Counted answers about items with its image."""
    strength: NotRequired[Optional[float]]
    """Logarithm of the Plackett-Luce strength; the strengths sum to 0. Out of an item, a method is chosen with
    probability exp(own) / Σ exp. `no_strengths` gives the reason for null.
    """
    strength_high: NotRequired[Optional[float]]
    """Upper end."""
    strength_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval, from the spread over prompts."""


class StudyNextResponse(TypedDict):
    """The next question for an annotator."""
    answered: int
    """Items about which the annotator has answered all questions."""
    completion_code: NotRequired[Optional[str]]
    """Code for the platform that pays the annotator, once everything is answered."""
    done: NotRequired[Optional[Done]]
    quota: int
    """Most items that the annotator is asked about: the quota, or all items if there are fewer."""
    task: NotRequired[Optional[StudyTask]]


class StudyPlan(TypedDict):
    """What a study asks, and how often."""
    answers_per_item: NotRequired[int]
    """Wanted answers to each question about each item, by different annotators. Default: 3."""
    cannot_tell: NotRequired[bool]
    """Whether "cannot tell" is an answer. It is stored and counts for no image. Default: true."""
    completion_code: NotRequired[Optional[str]]
    """Code that annotators are shown at the end, for a platform that has one code for all. Default: a code of their
    own.
    """
    consent: NotRequired[Optional[str]]
    """Text that annotators accept before they begin. Default: that of `/vote`."""
    form: NotRequired[StudyForm]
    """Form of the items."""
    gold: NotRequired[Optional[GoldPlan]]
    k: NotRequired[Optional[int]]
    """Images of an item of the form `best_of`, 2 to 8. Default: 4, or the number of runs if there are fewer."""
    name: str
    """Name, unique in the service."""
    prompts: NotRequired[PromptSelection]
    """The prompts. Default: all that the runs have in common."""
    questions: NotRequired[List[str]]
    """1 to 8 questions, in the order in which they are asked about an item. Default: `overall`."""
    quota: NotRequired[Optional[int]]
    """Maximum number of items of an annotator, gold items included. Default: 1000."""
    runs: List[str]
    """2 to 20 runs whose images are compared, one of each method."""
    seed: NotRequired[int]
    """Seed of the drawn prompts, of the order of the items and of the positions of images."""
    sets_per_prompt: NotRequired[Optional[int]]
    """Items for each prompt: sets of `k` of the runs, which are all used equally often. Default: all pairs of runs for
    `pairs`, 1 for `best_of`.
    """
    ties: NotRequired[bool]
    """Whether "equally good" is an answer; only pairs can have it. Default: false."""
    title: NotRequired[str]
    """Title for people. Default: the name."""


StudyState = Literal["draft", "open", "closed"]
"""State of a study."""


class StudyTask(TypedDict):
    """A question about an item. It names no method."""
    choices: List[str]
    """Answers that are allowed: positions from `1` on, `tie`, `cannot_tell`."""
    images: List[Optional[str]]
    """BLAKE3 hashes of the files of the images, in the order in which to show them."""
    item: int
    """Position of the item in the study, to be sent with the answer."""
    name: str
    """Name of the samples."""
    photos: List[str]
    """BLAKE3 hashes of the photos of the person."""
    prompt: NotRequired[Optional[str]]
    """The prompt."""
    question: str
    """The question, to be sent with the answer."""


Subject = Literal["image", "prompt", "references", "photos", "image_with_prompt", "objects", "relations", "dataset"]
"""The part of a sample that a metric needs features of."""


class SubmissionResponse(TypedDict):
    """A submission."""
    changed: str
    """Time of the last change of its state."""
    created: str
    """Time of its arrival."""
    dataset: NotRequired[Optional[str]]
    """Dataset that the prompts are from."""
    digest: str
    """Hash over all parts of its bundle: 64 hexadecimal digits."""
    id: str
    """Id of the submission."""
    method: str
    """The method."""
    pack: PackId
    """The pack of its scores."""
    run: str
    """The run of the method."""
    run_id: NotRequired[Optional[str]]
    """The run with its scores; null unless it is verified."""
    samples: int
    """Number of samples."""
    split: NotRequired[Optional[str]]
    """Split of the dataset."""
    state: SubmissionState
    """Its state."""
    verification: NotRequired[Optional[Verification]]


class SubmissionDetails(SubmissionResponse):
    """A submission with what its bundle says."""
    facts: BundleFacts
    """The facts of its bundle: declarations, versions, settings, counts and means."""


SubmissionState = Literal["received", "verified", "withdrawn"]
"""State of a submission."""


class SubmissionsResponse(TypedDict):
    """One page of submissions."""
    items: List[SubmissionResponse]
    """Submissions, the newest first."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class SubmittedEntry(TypedDict):
    """A submitted sample."""
    content: str
    """BLAKE3 hash of all its inputs together."""
    error: NotRequired[Optional[Failure]]
    id: str
    """Id of the sample; scoring does not change it."""
    name: str
    """Name of the sample in the run."""
    state: SampleState
    """State of the sample."""


class SubmittedResponse(TypedDict):
    """One page of a run's samples."""
    items: List[SubmittedEntry]
    """Samples, sorted by name."""
    next: NotRequired[Optional[str]]
    """Cursor of the next page, to be sent as `after`; absent on the last page."""


class Summary(MetricNumbers):
    """Summary of one metric over the samples of a method or run."""
    area: NotRequired[Optional[ApsArea]]
    clusters: NotRequired[Optional[int]]
    """Number of identities among the samples with a number; a sample without an identity counts as one."""
    faceless: NotRequired[Optional[int]]
    """Number of samples whose image has no face, for metrics that look for one."""
    few_clusters: NotRequired[Optional[bool]]
    """True if there are fewer than 8 such identities: with skewed scores, the coverage of the interval is then lower
    than stated.
    """
    last_rank: NotRequired[Optional[int]]
    """Last place that the intervals leave open: the number of ranked rows less those whose interval lies entirely on
    the worse side of this one's. Rows between `rank` and `last_rank` are not separable.
    """
    penalised: NotRequired[Optional[int]]
    """Number of penalised samples."""
    penalty_rate: NotRequired[Optional[float]]
    """Share of the samples that are penalised."""
    pending: bool
    """True if the run changed within the last seconds: counts and mean are current, but without interval and penalty.
    """
    rank: NotRequired[Optional[int]]
    """1 + the number of rows with the same pack and `sample_set` whose interval lies entirely on the better side of
    this one's. Null without an interval, and for metrics without a better end.
    """
    samples: NotRequired[Optional[int]]
    """Number of samples in the row, measured or not. This and the following counts are null while pending."""
    undecided: NotRequired[Optional[int]]
    """Number of samples for which the penalty cannot be decided because `clip_t` or `clip_n` is missing."""


class SwappedMetric(TypedDict):
    """Spread of one metric within groups."""
    few_people: bool
    """Whether there are fewer than 8 people, so that intervals are based on little data."""
    groups: int
    """Groups with numbers for at least two photos."""
    mean: float
    """Mean over these samples."""
    metric: str
    """Code of the metric."""
    no_interval: NotRequired[Optional[NoInterval]]
    people: int
    """People in these groups."""
    photo_share: NotRequired[Optional[float]]
    """Share of the variance that is between photos alone. Null as `photo_spread`."""
    photo_share_high: NotRequired[Optional[float]]
    """Upper end."""
    photo_share_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval."""
    photo_spread: NotRequired[Optional[float]]
    """Standard deviation between photos alone, without the spread of samples of one photo. Null if no group has two
    samples of one photo.
    """
    photos: int
    """Different photos in these groups; a photo in two groups counts twice."""
    rest_spread: NotRequired[Optional[float]]
    """Standard deviation of samples of one person, prompt and photo. Null as `photo_spread`."""
    samples: int
    """Samples in these groups."""
    share: NotRequired[Optional[float]]
    """Share of the variance that is within groups, 0 to 1: 1 − ICC(1). The rest is between people and prompts. Null for
    a single group, or without any variance.
    """
    share_high: NotRequired[Optional[float]]
    """Upper end."""
    share_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval."""
    spread: float
    """Standard deviation within groups, in the metric's unit: how far scores of one person and prompt typically are
    from their mean when the photo is swapped.
    """
    spread_high: NotRequired[Optional[float]]
    """Upper end."""
    spread_low: NotRequired[Optional[float]]
    """Lower end of its 95 % confidence interval."""
    version: int
    """Version of the metric's definition."""


TableFormat = Literal["json", "csv", "markdown", "latex"]
"""Format of a table."""


class TauDifference(TypedDict):
    """A metric compared with the reference metric."""
    best: NotRequired[Optional[bool]]
    """Whether the metric is in the best group: the reference metric, and those that are not shown to be worse. Null if
    that is not known.
    """
    clusters: int
    """Identities among them; without an identity, a prompt counts as one."""
    difference: NotRequired[Optional[float]]
    """`tau − tau_reference`: below 0 if the metric agrees less. Null for the reference metric."""
    few_clusters: bool
    """Whether there are fewer than 8 clusters, so that the interval is based on little data."""
    high: NotRequired[Optional[float]]
    """Upper end."""
    low: NotRequired[Optional[float]]
    """Lower end of the difference's 95 % confidence interval, clustered by identity. It is not corrected for the number
    of comparisons.
    """
    metric: str
    """Code of the metric."""
    no_difference: NotRequired[Optional[NoCoefficient]]
    no_interval: NotRequired[Optional[NoInterval]]
    p: NotRequired[Optional[float]]
    """Two-sided p-value of the difference, from the same resamples as the interval."""
    p_holm: NotRequired[Optional[float]]
    """P-value with Holm's correction over `comparisons`."""
    pairs: int
    """Pairs in which both images have scores of both metrics."""
    tau: NotRequired[Optional[float]]
    """Kendall's tau-b of the metric over these pairs, 1 for full agreement."""
    tau_reference: NotRequired[Optional[float]]
    """Kendall's tau-b of the reference metric over the same pairs."""
    verdict: TauVerdict
    """What the comparison shows."""
    version: int
    """Version of the metric's definition."""


TauVerdict = Literal["reference", "worse", "better", "not_distinguishable", "unknown"]
"""What a comparison with the reference metric shows, at the level of 5 % after correction."""


class TextEvidence(TypedDict):
    """Token count of the prompt for one text graph."""
    context: int
    """Largest number of tokens that the graph reads."""
    graph: str
    """Role of the graph."""
    tokens: int
    """Tokens of the prompt before truncation, start and end tokens included."""
    truncated: bool
    """True if the prompt was truncated."""


class Timings(TypedDict):
    """Milliseconds spent on a request."""
    read_ms: float
    """Reading and checking the upload."""
    score_ms: float
    """Decoding, queues, models and arithmetic."""
    store_ms: float
    """Storing the sample and its scores."""
    total_ms: float
    """The whole request."""


class TradeOffPoint(TypedDict):
    """A row of the leaderboard in the plane of two axes."""
    dominated_by: List[str]
    """Rows whose intervals lie wholly on the better side on both axes, so that they are shown to be better. A declared
    cost counts as an exact number.
    """
    method: str
    """The method."""
    on_front: bool
    """Whether the row is on the Pareto front: no other row over the same samples is at least as good in both means and
    better in one. False until the runs are summarised.
    """
    pack: PackId
    """The pack; points of different packs are not compared."""
    run: NotRequired[Optional[str]]
    """The run, if rows are runs."""
    runs: List[str]
    """Ids of the runs in this row."""
    sample_set: NotRequired[Optional[str]]
    """Identifier of the set of samples; points over different samples are not compared. Null until the runs are
    summarised.
    """
    x: Estimate
    """The first axis."""
    y: Estimate
    """The second axis."""


class TradeOffResponse(TypedDict):
    """The points in the plane of two axes."""
    on: NotRequired[Samples]
    """The samples that points cover."""
    points: List[TradeOffPoint]
    """Methods or runs with both numbers, by pack and then by `x`, best first."""
    policy: Policy
    """The penalty policy that was applied."""
    x: str
    """Code of the first metric, or the first cost."""
    y: str
    """Code of the second metric, or the second cost."""


class TrainingData(TypedDict):
    """What a method was trained on, in its authors' own terms. What is not declared is absent: it is unknown, and not
    false.
    """
    evaluation_photos_excluded: NotRequired[Optional[bool]]
    """Whether the photos that the method is evaluated with were excluded from its training, also by cross-validation.
    """
    trained_on_prompts: NotRequired[Optional[bool]]
    """Whether the method was trained on prompts that it is evaluated with."""


class TrainingTerm(TypedDict):
    """One fact about the training of a method."""
    contradicted: bool
    """Whether the flags of a listed run say the opposite."""
    declared_by: NotRequired[Optional[DeclaredBy]]
    value: NotRequired[Optional[bool]]
    """The fact; null if it is not declared."""


class TrainingTerms(TypedDict):
    """What a method was trained on: its card, or else the flags of its runs in the same terms."""
    evaluation_photos_excluded: TrainingTerm
    """Whether the photos that it is evaluated with were excluded. Of the flags of runs, `trained_on_evaluation_photos`
    means false, and `cross_validated_training` true.
    """
    trained_on_prompts: TrainingTerm
    """Whether it was trained on prompts that it is evaluated with. No flag of runs says so."""


class UniRlHealth(TypedDict):
    """Readiness of an adapter."""
    rewards: Dict[str, List[str]]
    """State of each reward, by name: `["ready"]`."""
    status: str
    """`"ok"`."""


class UniRlIdentity(TypedDict):
    """How the trainer identifies an item, as it was sent."""
    group_id: NotRequired[Optional[str]]
    idempotency_key: NotRequired[Optional[str]]
    policy_version: NotRequired[Optional[int]]
    request_id: NotRequired[Optional[str]]
    sample_id: NotRequired[Optional[str]]
    scorer_version: NotRequired[Optional[str]]
    source_rank: NotRequired[Optional[int]]


class UniRlItem(TypedDict):
    """An item with the rewards that it asks for."""
    group_id: NotRequired[Optional[str]]
    history: List[UniRlTurn]
    """Turns with prompt and image. The last image is the generated one; earlier images are references."""
    idempotency_key: NotRequired[Optional[str]]
    metadata: NotRequired[Optional[Dict[str, Any]]]
    """Metadata of the sample. Fields that no metric needs are ignored."""
    policy_version: NotRequired[Optional[int]]
    request_id: NotRequired[Optional[str]]
    """How the trainer identifies the item, in this field and the next ones; repeated in the response."""
    required_rewards: List[str]
    """Names of rewards, as configured."""
    sample_id: NotRequired[Optional[str]]
    scorer_version: NotRequired[Optional[str]]
    """If present, the digest or the name of the loaded pack. Any other is refused."""
    source_rank: NotRequired[Optional[int]]


class UniRlRewards(TypedDict):
    """Names of the rewards of an adapter."""
    rewards: List[str]
    """The names, sorted."""


class UniRlScoreRequest(TypedDict):
    """A batch of `UniRL`."""
    protocol_version: NotRequired[Optional[str]]
    """`"1"`, or absent."""
    requests: List[UniRlItem]
    """The items."""


class UniRlScoreResponse(TypedDict):
    """Rewards of a batch, in the order of the items."""
    errors: List[Dict[str, str]]
    """For each item, why rewards are missing, by name."""
    identities: NotRequired[List[UniRlIdentity]]
    """The identity of each item, if any item has one."""
    protocol_version: str
    """`"1"`."""
    results: List[Dict[str, Dict[str, float]]]
    """For each item, its rewards by name: one number under the same name again. A reward without a number is not here.
    """


class UniRlTurn(TypedDict):
    """A turn of an item."""
    image_b64: NotRequired[Optional[str]]
    """An image file in base64."""
    text: str
    """The prompt."""
    video_b64: NotRequired[Optional[str]]
    """Not supported: an item with a video has an error."""
    video_path: NotRequired[Optional[str]]
    """Not supported, as `video_b64`."""


Unmapped = Literal["subject", "predicate"]
"""Reason why a relation has no score."""


class UserStudy(TypedDict):
    """The user study of a paper."""
    answers: int
    """Number of answers."""
    note: str
    """What was asked, and how to read the shares."""
    shares: List[PreferredShare]
    """Shares of the answers, largest first."""


class Verification(TypedDict):
    """What a verifier did."""
    at: str
    """Time of the verification."""
    note: str
    """Note of the verifier; empty without one."""
    samples: int
    """Number of samples that were scored again."""
    seed: int
    """Seed of the choice of samples: with it, anyone can score the same ones again."""
    share: float
    """Share of the samples that was scored again."""


class VerificationReport(TypedDict):
    """What a verifier did."""
    note: NotRequired[str]
    """Note for the change log, at most 2000 bytes."""
    samples: int
    """Number of samples that were scored again."""
    seed: int
    """Seed of the choice of samples."""
    share: float
    """Share of the samples that was scored again, above 0 and at most 1."""


class Voting(TypedDict):
    """How annotators vote, together and one by one."""
    annotators: List[AnnotatorVoting]
    """One entry per annotator with a vote, by name."""
    cannot_tell: int
    """Pairs about which annotators could not tell. They are not ties and do not count."""
    consistency: Proportion
    """Repeated pairs with the same answer as before."""
    first: Proportion
    """Preferences for the image that was shown first (on the left), of the votes with a preference and a known
    position.
    """
    ties: int
    """Those of them without a preference."""
    votes: int
    """Votes that count."""


Weights = Literal["official", "demo", "imported"]
"""Origin of a pack's weights. Demo scores are meaningless and are never ranked with official ones."""


class Withdrawal(TypedDict):
    """A decision with a note."""
    note: NotRequired[str]
    """Note for the change log, at most 2000 bytes."""


Within = Literal["prompt"]
"""Groups whose differences do not count in a correlation."""


class Worst(TypedDict):
    """The sample with the largest difference."""
    difference: float
    """This pack's score minus the other's."""
    sample: str
    """The sample's name."""
