//! An error of this server, before a dialect gives it its shape.

/// An error that a dialect writes.
#[derive(Debug, Clone, Copy)]
pub struct ErrorReply<'a> {
    /// One sentence.
    pub message: &'a str,
    /// The class of the error.
    pub class: ErrorClass,
    /// The field at fault.
    pub param: Option<&'a str>,
    /// The stable name of the kind of error.
    pub code: &'static str,
    /// The id of the request, where it is known.
    pub request_id: Option<&'a str>,
}

/// The classes of errors that clients of language models distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The credential is missing or unknown.
    Authentication,
    /// The client sends too much at a time.
    RateLimit,
    /// The request is wrong.
    InvalidRequest,
    /// The server, or an upstream, has failed.
    Server,
}
