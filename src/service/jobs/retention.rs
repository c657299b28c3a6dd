//! Until when the generation is kept that a job has replaced.

use std::sync::Arc;
use std::time::Duration;

use super::Jobs;
use super::live_job::LiveJob;
use super::record::JobRecord;
use crate::sync::lock;

/// How often it is looked whether a former generation is to be removed.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Jobs {
    /// Removes former generations whose time is over, for as long as the server runs.
    pub(super) async fn drop_former_generations(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            for job in self.keepers() {
                self.drop_former_of(&job).await;
            }
        }
    }

    /// The jobs whose former generations are kept. An earlier job on the same collection has no say in it any more.
    fn keepers(&self) -> Vec<Arc<LiveJob>> {
        let jobs: Vec<Arc<LiveJob>> = lock(&self.table).values().map(Arc::clone).collect();
        let mut latest: Vec<(JobRecord, Arc<LiveJob>)> = Vec::new();
        for job in jobs {
            let record = job.record();
            if record.report().is_none() {
                continue;
            }
            latest.retain(|(known, _)| !known.is_of_same_collection(&record));
            latest.push((record, job));
        }
        let kept = latest.into_iter().filter(|(record, _)| record.keeps_former());
        kept.map(|(_, job)| job).collect()
    }

    async fn drop_former_of(&self, job: &LiveJob) {
        let record = job.record();
        let (Some(report), Some(collection)) = (record.report(), record.spec.collection()) else { return };
        let principal = record.principal();
        let dropped = self.collections.drop_former(&principal, collection, report, self.clock.now());
        match dropped.await {
            Ok(false) => {}
            Ok(true) => {
                let record = job.update(|record| record.is_former_dropped = true);
                if let Err(error) = record.put().and_then(|change| self.store.write_soon(change)) {
                    tracing::warn!(%error, "it is not recorded that a former generation is removed");
                }
            }
            Err(error) => tracing::warn!(%error, "a former generation of a collection cannot be removed yet"),
        }
    }
}
