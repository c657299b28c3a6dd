//! The embedding model: whether it is here, and how fast it is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use likewise::app;
use likewise::config::Config;
use likewise::embed::{EmbedJob, Embedder, Priority};
use likewise::error::{Error, Kind, Result};
use likewise::model_fetch::ModelReference;
use tokio::sync::oneshot;

use super::super::model as fetched;
use super::Check;

const TEXT: &str = "una camiseta azul";

pub(super) async fn checks(mut config: Config) -> Vec<Check> {
    if let Some(base_url) = &config.embed.remote.base_url {
        let detail =
            format!("on another server, {base_url}; it is asked for no vector here, which might cost money");
        return vec![Check::ok("model", detail)];
    }
    if !config.has_default_model() {
        let detail = match config.models.len() {
            0 => "none: texts are embedded by the models of upstreams only".to_owned(),
            count => format!("{count} of [[models]], which are not tried here"),
        };
        return vec![Check::ok("model", detail)];
    }
    let reference = match ModelReference::parse(config.model.dir.as_deref()) {
        Ok(reference) => reference,
        Err(error) => return vec![Check::fault("model", &error)],
    };
    match fetched::cached(&reference) {
        Err(error) => return vec![Check::fault("model", &error)],
        Ok(None) => {
            let named = match &reference {
                ModelReference::Hub(repo) => format!(" {repo}"),
                ModelReference::Default | ModelReference::Directory(_) => String::new(),
            };
            let advice = format!("type `likewise fetch{named}`, or let the server fetch it at its start");
            return vec![Check::warn("model", "it is not on this machine yet", advice)];
        }
        Ok(Some(dir)) => config.model.dir = Some(dir),
    }
    let began = Instant::now();
    match app::load_embedder(&config) {
        Err(error) => vec![Check::fault("model", &error)],
        Ok(embedder) => {
            let card = embedder.card();
            let detail = format!(
                "{}, {} dimensions, loaded in {} ms",
                card.name,
                card.dim,
                began.elapsed().as_millis()
            );
            vec![Check::ok("model", detail), embed(embedder).await]
        }
    }
}

async fn embed(embedder: Arc<dyn Embedder>) -> Check {
    // The first pass also warms up the threads.
    let warm = one_vector(&*embedder).await;
    let began = Instant::now();
    match warm.and(one_vector(&*embedder).await) {
        Ok(()) => {
            Check::ok("embedding", format!("one text in {:.1} ms", began.elapsed().as_secs_f64() * 1e3))
        }
        Err(error) => Check::fault("embedding", &error),
    }
}

async fn one_vector(embedder: &dyn Embedder) -> Result<()> {
    let (reply, vector) = oneshot::channel();
    let job = EmbedJob {
        text: TEXT.into(),
        priority: Priority::Interactive,
        reply,
        is_abandoned: Arc::new(AtomicBool::new(false)),
        since: Instant::now(),
        place: None,
    };
    embedder.submit(vec![job])?;
    let lost = |_| Error::new(Kind::Internal, "the model sent no vector");
    vector.await.map_err(lost)?.map(|_| ())
}
