//! A job as JSON.

use serde::Serialize;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::labels::Label;
use crate::search::{CollectionWork, CollectionWorkKind};
use crate::service::background_work::ItemError;
use crate::service::collections::{ReembedPlan, ReembedReport, ReembedVerification};
use crate::service::jobs::{JobKind, JobResult, JobSpec, JobState, JobStatus};
use crate::service::warming::WarmReport;

/// What the ids of the work of collections begin with; the names of the collections follow.
const WORK_IDS: [(CollectionWorkKind, &str); 3] = [
    (CollectionWorkKind::IndexBuild, "index-"),
    (CollectionWorkKind::Snapshot, "snapshot-"),
    (CollectionWorkKind::Compaction, "compaction-"),
];

/// The words of a closed list, for the contract.
fn words<L: Label>() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(L::WORDS.iter().copied())).into()
}

/// The kind of a job, for the contract.
pub(super) struct JobKindName;

impl PartialSchema for JobKindName {
    fn schema() -> RefOr<Schema> {
        words::<JobKind>()
    }
}

impl ToSchema for JobKindName {}

/// The state of a job, for the contract.
pub(super) struct JobStateName;

impl PartialSchema for JobStateName {
    fn schema() -> RefOr<Schema> {
        words::<JobState>()
    }
}

impl ToSchema for JobStateName {}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct JobObject {
    /// `job`.
    object: &'static str,
    /// Its id.
    id: String,
    /// What it does.
    #[schema(value_type = JobKindName)]
    kind: &'static str,
    /// Its state.
    #[schema(value_type = JobStateName)]
    state: &'static str,
    /// The collection that it works on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    collection: Option<String>,
    /// The files whose lines are warmed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    files: Option<Vec<String>>,
    /// The model whose vectors it makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// Whether it only says what it would take.
    dry_run: bool,
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    created_at: Option<u32>,
    /// When it came to its state, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    changed_at: Option<u32>,
    /// Documents, lines or rows that are done.
    done: u64,
    /// All of them, as far as that is known.
    total: u64,
    /// Items of a second since it last began to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rate_per_second: Option<f64>,
    /// Seconds that it will take at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seconds_left: Option<f64>,
    /// Tokens that it has sent to the model. Texts whose vectors were cached have none.
    tokens: u64,
    /// Dollars that these cost by the price table, if that names the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cost_usd: Option<f64>,
    /// The first 1000 documents that could not be embedded, or lines that are wrong or were refused; empty in the list of all jobs.
    errors: Vec<ItemErrorObject>,
    /// All of them.
    errors_total: u64,
    /// Why it is paused, or has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
    /// What a dry run has found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    plan: Option<PlanObject>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    report: Option<ReportObject>,
    /// What became of the lines of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    lines: Option<WarmedLines>,
}

/// What became of the lines of files.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WarmedLines {
    /// Lines that a cache had.
    cached: u64,
    /// Lines that were made.
    made: u64,
    /// Lines that are wrong, or were refused.
    failed: u64,
}

/// A document or a line that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ItemErrorObject {
    /// The id of the document, or the file and the number of the line.
    item: String,
    /// Why.
    message: String,
}

/// What it would take to embed a collection by another model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlanObject {
    /// The model whose vectors are served.
    from_model: String,
    /// The model whose vectors would be served.
    to_model: String,
    /// Length of the new vectors.
    dimensions: usize,
    /// Documents of the collection.
    documents: usize,
    /// Their distinct texts.
    distinct_texts: usize,
    /// Of these, those whose new vectors are cached.
    cached_texts: usize,
    /// Tokens of all distinct texts, as far as the model reads them.
    tokens: u64,
    /// Of these, those that would be sent to the model.
    uncached_tokens: u64,
    /// `model` if they were counted by the model's own tokenizer, `cl100k` if by that of OpenAI's models.
    tokenizer: &'static str,
    /// Seconds, by the rate of a sample; absent for a model on another server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seconds: Option<f64>,
    /// Dollars by the price table; absent if that does not name the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cost_usd: Option<f64>,
    /// Bytes on disk until the former vectors are removed, indexes not counted.
    disk_bytes: u64,
}

/// What came of embedding a collection by another model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReportObject {
    /// The model whose vectors were served before.
    from_model: String,
    /// The model whose vectors are served now.
    to_model: String,
    /// Documents that are served now.
    documents: usize,
    /// Documents that are not served any more, because the model refuses them.
    refused: usize,
    /// Until when the former vectors are kept for a rollback, in seconds since 1970.
    former_until: u32,
    /// What was found before the change.
    verification: VerificationObject,
}

/// What was found in a sample of the new vectors, and in all of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerificationObject {
    /// Documents of the sample.
    sampled: usize,
    /// The least cosine of a stored vector and that of its text, embedded again without the cache.
    cosine_min: f64,
    /// Vectors of all documents that are not finite, or zero.
    bad_vectors: usize,
    /// Documents of the sample that a search for their own vector does not find.
    not_found_by_own_vector: usize,
    /// The share of the ten nearest documents that both models agree on, as a mean.
    neighbour_overlap: f64,
    /// The share of the exact results that the new index finds; absent without an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    index_recall: Option<f64>,
}

pub(super) fn describe(status: JobStatus) -> JobObject {
    let JobStatus { record, rate, seconds_left } = status;
    let frame = JobObject::new(record.id(), record.spec.kind(), record.state);
    let (collection, model) =
        (record.spec.collection().map(str::to_owned), record.spec.model().map(str::to_owned));
    let job = JobObject {
        collection,
        model,
        dry_run: record.spec.reembed().is_some_and(|spec| spec.dry_run),
        files: match record.spec {
            JobSpec::Reembed(_) => None,
            JobSpec::Warm(spec) => Some(spec.files.iter().map(|file| file.display().to_string()).collect()),
        },
        created_at: Some(record.created_at),
        changed_at: Some(record.changed_at),
        done: record.progress.done,
        total: record.progress.total,
        rate_per_second: rate,
        seconds_left,
        tokens: record.progress.tokens,
        cost_usd: record.progress.cost_usd,
        errors: record.progress.errors.into_iter().map(describe_error).collect(),
        errors_total: record.progress.errors_total,
        message: record.message,
        ..frame
    };
    match record.result {
        None => job,
        Some(JobResult::Plan(plan)) => JobObject { plan: Some(describe_plan(plan)), ..job },
        Some(JobResult::Reembedded(report)) => JobObject { report: Some(describe_report(report)), ..job },
        Some(JobResult::Warmed(WarmReport { cached, made, failed })) => {
            JobObject { lines: Some(WarmedLines { cached, made, failed }), ..job }
        }
    }
}

impl JobObject {
    /// A job of which no more is known.
    fn new(id: String, kind: JobKind, state: JobState) -> JobObject {
        JobObject {
            object: "job",
            id,
            kind: kind.as_str(),
            state: state.as_str(),
            collection: None,
            files: None,
            model: None,
            dry_run: false,
            created_at: None,
            changed_at: None,
            done: 0,
            total: 0,
            rate_per_second: None,
            seconds_left: None,
            tokens: 0,
            cost_usd: None,
            errors: Vec::new(),
            errors_total: 0,
            message: None,
            plan: None,
            report: None,
            lines: None,
        }
    }
}

/// Work that a collection does by itself, or for a snapshot.
pub(super) fn describe_work(collection: &str, work: CollectionWork) -> JobObject {
    let CollectionWork { kind, begun_at, done, total } = work;
    let prefix = WORK_IDS.into_iter().find(|(own, _)| *own == kind).map_or("", |(_, prefix)| prefix);
    let kind = match kind {
        CollectionWorkKind::IndexBuild => JobKind::IndexBuild,
        CollectionWorkKind::Snapshot => JobKind::Snapshot,
        CollectionWorkKind::Compaction => JobKind::Compaction,
    };
    let frame = JobObject::new(format!("{prefix}{collection}"), kind, JobState::Running);
    JobObject {
        collection: Some(collection.to_owned()),
        created_at: Some(begun_at.0),
        changed_at: Some(begun_at.0),
        done,
        total,
        ..frame
    }
}

/// The kind of work and the name of the collection that an id stands for; `None` if it is that of a recorded job.
pub(super) fn work_of(id: &str) -> Option<(CollectionWorkKind, &str)> {
    WORK_IDS.into_iter().find_map(|(kind, prefix)| Some((kind, id.strip_prefix(prefix)?)))
}

fn describe_error(error: ItemError) -> ItemErrorObject {
    ItemErrorObject { item: error.item, message: error.message }
}

fn describe_plan(plan: ReembedPlan) -> PlanObject {
    PlanObject {
        from_model: plan.from_model,
        to_model: plan.to_model,
        dimensions: plan.dimensions,
        documents: plan.documents,
        distinct_texts: plan.distinct_texts,
        cached_texts: plan.cached_texts,
        tokens: plan.tokens,
        uncached_tokens: plan.uncached_tokens,
        tokenizer: if plan.is_exact { "model" } else { "cl100k" },
        seconds: plan.seconds,
        cost_usd: plan.cost_usd,
        disk_bytes: plan.disk_bytes,
    }
}

fn describe_report(report: ReembedReport) -> ReportObject {
    let ReembedVerification {
        sampled,
        cosine_min,
        bad_vectors,
        not_found_by_own_vector,
        neighbour_overlap,
        index_recall,
    } = report.verification;
    ReportObject {
        from_model: report.from_model,
        to_model: report.to_model,
        documents: report.documents,
        refused: report.refused,
        former_until: report.former_until,
        verification: VerificationObject {
            sampled,
            cosine_min,
            bad_vectors,
            not_found_by_own_vector,
            neighbour_overlap,
            index_recall,
        },
    }
}
