//! What the caller of a fetch learns while it goes on.

/// Is notified of what a fetch does.
pub trait FetchProgress: Send + Sync {
    /// The download of `model` from `source` begins, of `bytes` if that is known.
    fn started(&self, model: &str, source: &str, bytes: Option<u64>);
    /// `bytes` more have arrived, or were there from an earlier attempt.
    fn advanced(&self, bytes: u64);
    /// An attempt failed, and is retried.
    fn retried(&self, reason: &str);
    /// Another process fetches the same model.
    fn waits_for_another_process(&self);
    /// The model is in its place.
    fn finished(&self);
}
