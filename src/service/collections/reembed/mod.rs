//! The vectors of a collection by another model.
//!
//! The flow: a generation of the collection beside the one that is served → passes, each of which embeds what the new one still lacks or
//! has otherwise, until little is left → verification → with changes paused, the last pass and the change of the generation that is
//! served. A pass compares documents and needs no record of what was done: work that was paused or killed goes on with the next pass. A
//! rollback is the same work with the former generation in the place of a new one, so that writes since then are kept.

mod checks;
mod fill;
mod plan;
mod report;
mod task;
mod verification;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use self::checks::{check_is_other, check_prompt_of_former, is_same, pause_for_refused};
use self::fill::Fill;
pub use self::plan::ReembedPlan;
pub use self::report::ReembedReport;
use self::task::ReembedTask;
pub use self::task::{LeftDocuments, ReembedSpec};
pub use self::verification::ReembedVerification;
use super::Collections;
use super::query_vectors::collection_model;
use crate::domain::{InputType, Principal, UnixSeconds};
use crate::embed::Embedder;
use crate::error::{Error, Kind, Result};
use crate::search::{Collection, CollectionModel, PausedWrites, Settings};
use crate::service::background_work::{Interruption, WorkControl};
use crate::service::embeddings::Request;

/// Documents that may be left for the pass during which changes wait.
const LAST_PASS_DOCUMENTS_MAX: usize = 64;
/// How long changes wait for the last pass.
const PAUSED_MAX: Duration = Duration::from_secs(5);
/// How often the last pass is tried before the work is paused.
const LAST_PASSES: usize = 20;
/// How often it is looked whether the index is built.
const INDEX_LOOK_EVERY: Duration = Duration::from_millis(200);

impl Collections {
    /// Looks whether a collection can be embedded again, and returns what is to be done with the name of the model, also for a rollback:
    /// which generation is the former one changes with the work.
    ///
    /// # Errors
    /// `NotFound` without the collection; `ModelNotFound`; `InvalidInput` at `model` for none, and for one beside `rollback`; `Conflict` if
    /// it has no model, has that model already, has documents that brought their vectors, or has nothing to be rolled back to.
    pub async fn resolve_reembed(&self, principal: &Principal, spec: ReembedSpec) -> Result<ReembedSpec> {
        let held = self.held_model(principal, &spec.collection)?;
        let model = match (&spec.model, spec.rollback) {
            (Some(name), false) => Arc::clone(self.model_for_collection(name)?),
            (None, true) => self.former_model(principal, &spec.collection)?,
            (Some(_), true) => {
                return Err(Error::invalid(
                    "model",
                    "a rollback has no model: the former one is served again",
                ));
            }
            (None, false) => return Err(Error::invalid("model", "model must be given, or rollback")),
        };
        check_is_other(&held, &*model)?;
        self.check_own_vectors(&self.catalog.get(&principal.tenant, &spec.collection)?).await?;
        Ok(ReembedSpec { model: Some(model.card().name.clone()), ..spec })
    }

    /// Says what it would take to embed a collection by another model. Embeds a sample with a local model, to measure its rate.
    ///
    /// # Errors
    /// Those of [`Collections::resolve_reembed`], and interruptions.
    pub async fn plan_reembed(
        &self,
        principal: &Arc<Principal>,
        spec: &ReembedSpec,
        control: &WorkControl,
    ) -> Result<ReembedPlan, Interruption> {
        let task = self.reembed_task(principal, spec)?;
        self.plan(principal, spec, &task, control).await
    }

    /// Embeds a collection by another model and serves its vectors. Searches go on meanwhile; changes wait at the end, for seconds at most.
    /// Documents that were `left` in the generation that is filled stay there, unless the served one has had them meanwhile.
    ///
    /// # Errors
    /// Those of [`Collections::resolve_reembed`], and interruptions. Until the generation is served nothing of what is served has changed;
    /// the new one is kept, and the next call goes on with it.
    pub async fn reembed(
        &self,
        principal: &Arc<Principal>,
        spec: &ReembedSpec,
        left: LeftDocuments,
        control: &WorkControl,
    ) -> Result<ReembedReport, Interruption> {
        if let Some((task, served)) = self.served_already(principal, spec)? {
            let verification = self.verify(principal, &task, &served, control).await?;
            return Ok(self.report(spec, &task, &served, control.refused(), verification));
        }
        let task = self.reembed_task(principal, spec)?;
        let target = self.target(principal, spec, &task).await?;
        control.clear_errors();
        let left = if left.generation == target.number() { left.ids } else { HashSet::new() };
        let mut fill = Fill::new(self, control, principal, &task, &target, left);
        fill.converge().await?;
        pause_for_refused(spec, &fill)?;
        self.wait_for_index(&task.source, &target, control).await?;
        let verification = self.verify(principal, &task, &target, control).await?;
        verification.check(self.options.recall_target)?;
        self.switch(principal, spec, &mut fill).await?;
        Ok(self.report(spec, &task, &target, fill.refused(), verification))
    }

    fn report(
        &self,
        spec: &ReembedSpec,
        task: &ReembedTask,
        served: &Collection,
        refused: usize,
        verification: ReembedVerification,
    ) -> ReembedReport {
        let former_until = self.cache.freshness().now().plus(spec.keep_old_hours.saturating_mul(3600));
        ReembedReport {
            from_model: task.from_model.clone(),
            to_model: task.model.card().name.clone(),
            former_generation: task.source.number(),
            generation: served.number(),
            documents: served.view().documents(),
            refused,
            verification,
            former_until: former_until.0,
        }
    }

    /// The former generation and the one that is served, if that is of the model already: the server ended before the end of the work was
    /// recorded.
    fn served_already(
        &self,
        principal: &Principal,
        spec: &ReembedSpec,
    ) -> Result<Option<(ReembedTask, Arc<Collection>)>> {
        let served = self.catalog.get(&principal.tenant, &spec.collection)?;
        let model = Arc::clone(self.models.get(spec.model.as_deref().unwrap_or_default())?);
        let is_served = served.settings().model.as_ref().is_some_and(|held| is_same(held, &*model));
        let former = self.former(principal, &spec.collection)?.filter(|_| is_served);
        Ok(former.and_then(|source| {
            let from_model = source.settings().model.as_ref()?.name.clone();
            Some((ReembedTask { source, from_model, model }, served))
        }))
    }

    /// Removes what was made of a generation that was never served.
    ///
    /// # Errors
    /// As [`Catalog::drop_generation`](crate::search::Catalog::drop_generation).
    pub async fn cancel_reembed(&self, principal: &Principal, spec: &ReembedSpec) -> Result<()> {
        for other in self.catalog.other_generations(&principal.tenant, &spec.collection)? {
            if other.activation().is_none() {
                self.catalog.drop_generation(&principal.tenant, &spec.collection, other.number()).await?;
            }
        }
        Ok(())
    }

    /// Removes the former generation once its time is over; returns whether it is gone.
    ///
    /// # Errors
    /// `Io`.
    pub async fn drop_former(
        &self,
        principal: &Principal,
        collection: &str,
        report: &ReembedReport,
        now: UnixSeconds,
    ) -> Result<bool> {
        if now.0 < report.former_until {
            return Ok(false);
        }
        let dropped = self.catalog.drop_generation(&principal.tenant, collection, report.former_generation);
        match dropped.await {
            // It is served again, or the collection is gone.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => Ok(true),
            dropped => dropped.map(|()| true),
        }
    }

    fn reembed_task(&self, principal: &Principal, spec: &ReembedSpec) -> Result<ReembedTask> {
        let held = self.held_model(principal, &spec.collection)?;
        let model = Arc::clone(self.models.get(spec.model.as_deref().unwrap_or_default())?);
        check_is_other(&held, &*model)?;
        let source = self.catalog.get(&principal.tenant, &spec.collection)?;
        Ok(ReembedTask { source, from_model: held.name, model })
    }

    /// The model whose vectors a collection holds.
    fn held_model(&self, principal: &Principal, name: &str) -> Result<CollectionModel> {
        let served = self.catalog.get(&principal.tenant, name)?;
        served.settings().model.clone().ok_or_else(|| {
            let message = "the collection has no model: its documents brought their vectors, which no model can make again";
            Error::new(Kind::Conflict, message).param("collection")
        })
    }

    /// The generation that was served before.
    fn former(&self, principal: &Principal, name: &str) -> Result<Option<Arc<Collection>>> {
        let others = self.catalog.other_generations(&principal.tenant, name)?;
        let served_once = others.into_iter().filter(|other| other.activation().is_some());
        Ok(served_once.max_by_key(|other| other.activation()))
    }

    /// The model of the generation that was served before.
    fn former_model(&self, principal: &Principal, name: &str) -> Result<Arc<dyn Embedder>> {
        let former = self.former(principal, name)?.ok_or_else(|| {
            let message = "there is no former generation of the collection to be rolled back to: it was never embedded again, or \
                           the time for which the former generation was kept is over";
            Error::new(Kind::Conflict, message).param("rollback")
        })?;
        let model = self.model_of(&former, "rollback")?;
        check_prompt_of_former(&former, model.card())?;
        Ok(Arc::clone(model))
    }

    /// # Errors
    /// `Conflict` if documents of the collection brought their vectors.
    async fn check_own_vectors(&self, source: &Arc<Collection>) -> Result<()> {
        let view = source.view();
        let count = move || {
            let own = view
                .iter()
                .filter(|(document, _)| fill::own_vector(document.has_own_vector, document.text).is_some());
            let mut ids = own.map(|(document, _)| document.id.to_owned());
            ids.next().map(|first| (first, 1 + ids.count()))
        };
        let found = tokio::task::spawn_blocking(count).await;
        let died = |died| Error::new(Kind::Internal, "cannot look through a collection").source(died);
        match found.map_err(died)? {
            None => Ok(()),
            Some((first, count)) => {
                let message = format!(
                    "{count} documents of the collection brought their vectors, which no model can make again; the first is {first:?}"
                );
                Err(Error::new(Kind::Conflict, message).param("collection"))
            }
        }
    }

    /// The request for the vectors of texts of documents for which no client waits.
    fn background_request(
        &self,
        model: &Arc<dyn Embedder>,
        texts: Vec<String>,
        principal: &Arc<Principal>,
    ) -> Request {
        let request = self.request_of(model, texts, InputType::Document, true, principal);
        Request { is_background: true, ..request }
    }

    /// The generation that is to be filled: the one of this model that is there, or a new one. Others that are not served are removed.
    async fn target(
        &self,
        principal: &Principal,
        spec: &ReembedSpec,
        task: &ReembedTask,
    ) -> Result<Arc<Collection>> {
        let (tenant, name) = (&principal.tenant, &*spec.collection);
        let card = task.model.card();
        let model = Some(collection_model(card));
        let settings = Settings { dim: card.dim, model, ..task.source.settings().clone() };
        let mut target = None;
        for other in self.catalog.other_generations(tenant, name)? {
            if target.is_none() && other.settings().is_of_same_vectors(&settings) {
                target = Some(other);
            } else {
                self.catalog.drop_generation(tenant, name, other.number()).await?;
            }
        }
        match target {
            Some(target) => Ok(target),
            None => self.catalog.add_generation(tenant, name, settings).await,
        }
    }

    /// Lets the new generation have an index if the served one has.
    async fn wait_for_index(
        &self,
        source: &Collection,
        target: &Collection,
        control: &WorkControl,
    ) -> Result<(), Interruption> {
        if source.view().indexed_rows() == 0 || target.view().indexed_rows() > 0 {
            return Ok(());
        }
        match target.index() {
            Ok(()) => {}
            // Too few documents by now.
            Err(error) if error.kind() == Kind::Conflict => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while target.is_indexing() {
            control.wait(INDEX_LOOK_EVERY).await?;
        }
        Ok(())
    }

    /// Serves the new generation: with changes paused, what is left is embedded, and then the one takes the place of the other.
    async fn switch(
        &self,
        principal: &Principal,
        spec: &ReembedSpec,
        fill: &mut Fill<'_>,
    ) -> Result<(), Interruption> {
        for _ in 0..LAST_PASSES {
            fill.converge().await?;
            pause_for_refused(spec, fill)?;
            let paused = fill.source().pause_writes().await?;
            let last = tokio::time::timeout(PAUSED_MAX, fill.last_pass(LAST_PASS_DOCUMENTS_MAX)).await;
            match last {
                Ok(Ok(true)) => {
                    pause_for_refused(spec, fill)?;
                    return self.activate(principal, spec, paused, fill.target().number()).await;
                }
                Ok(Err(interruption)) => return Err(interruption),
                // Too much for changes to wait for.
                Ok(Ok(false)) | Err(_) => drop(paused),
            }
        }
        let reason =
            "documents are changed faster than the model embeds them; resume when there are fewer changes";
        Err(Interruption::Paused(Some(reason.into())))
    }

    /// Serves a generation. What has begun is finished, also if the work is interrupted meanwhile.
    async fn activate(
        &self,
        principal: &Principal,
        spec: &ReembedSpec,
        paused: PausedWrites,
        number: u32,
    ) -> Result<(), Interruption> {
        let (catalog, tenant) = (Arc::clone(&self.catalog), principal.tenant.clone());
        let name = spec.collection.clone();
        let activated =
            tokio::spawn(async move { catalog.activate(&tenant, &name, paused, number).await.map(|_| ()) });
        let died = |died| Error::new(Kind::Internal, "cannot serve another generation").source(died);
        Ok(activated.await.map_err(died)??)
    }
}
