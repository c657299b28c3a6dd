//! Replays stored answers in the form that a client requests.

use super::lookup::Match;
use super::request::ResponseForm;
use super::response::Body;
use super::stored_answer::StoredAnswer;
use crate::dialects::StreamForm;
use crate::domain::UnixSeconds;

/// About so many bytes of a replay are produced at once.
pub const REPLAYED_BYTES: usize = 64 * 1024;

/// An answer as a new response, created now. `ends_with_done` says how its own stream ended, if it came as one. `None` if the form cannot
/// represent it exactly.
pub(super) fn replayed(
    json: &[u8],
    ends_with_done: bool,
    form: ResponseForm,
    now: UnixSeconds,
) -> Option<Body> {
    if form.streams && !form.dialect.replays_whole_only() {
        let stream_form = StreamForm { wants_usage: form.wants_usage, ends_with_done };
        let mut replay = form.dialect.replay_events(json, now, stream_form)?;
        let first = replay.next_bytes(REPLAYED_BYTES)?;
        return Some(if replay.is_over() { Body::Events(first) } else { Body::Replay(first, replay) });
    }
    Some(Body::Whole(form.dialect.replay_json(json, now).into()))
}

/// The stored answer, if it can be replayed in this form.
pub(super) fn record_for(found: &Match, form: ResponseForm) -> Option<StoredAnswer<'_>> {
    let record = record_of_dialect(found, form)?;
    // A JSON answer reports usage, and so does a stream whose client requested it, unless the upstream never does.
    let needs_usage = !form.streams || form.wants_usage;
    let reports_usage = record.usage.is_some() || record.was_usage_requested;
    (reports_usage || !needs_usage).then_some(record)
}

/// The stored answer, if it is of the dialect of this form, and of a kind that may be served in it.
pub(super) fn record_of_dialect(found: &Match, form: ResponseForm) -> Option<StoredAnswer<'_>> {
    let record = StoredAnswer::decode(&found.found.entry.value)?;
    let is_of_dialect = !record.is_text && record.dialect == form.dialect.record_code();
    let is_of_kind = form.kinds.reason_against(record.calls_tools, record.is_truncated).is_none();
    (is_of_dialect && is_of_kind).then_some(record)
}
