//! Members of objects whose values are kept as text, as events add them up.

use serde_json::value::RawValue;

use crate::dialects::Unstorable;
use crate::raw_object::{RawObject, write_object};

/// Members, in their order.
pub(super) type OwnedMembers = Vec<(String, Box<RawValue>)>;

/// Refuses an object with a member that is not listed, unless it is null.
///
/// # Errors
/// `UnknownMember`.
pub(super) fn check_names(object: &RawObject<'_>, listed: &[&str]) -> Result<(), Unstorable> {
    let is_listed =
        |(name, value): &(String, &RawValue)| listed.contains(&name.as_str()) || value.get() == "null";
    object.0.iter().all(is_listed).then_some(()).ok_or(Unstorable::UnknownMember)
}

/// Gives a member its value, in its place if it has one.
pub(super) fn set(members: &mut OwnedMembers, name: &str, value: Box<RawValue>) {
    match members.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value,
        None => members.push((name.to_owned(), value)),
    }
}

/// Members as an object.
pub(super) fn write_members(members: &OwnedMembers) -> Vec<u8> {
    write_object(members.iter().map(|(name, value)| (name.as_str(), value.get())))
}

/// JSON that was written here, as a value.
///
/// # Errors
/// `Uncertain` for what is no JSON.
pub(super) fn raw(json: Vec<u8>) -> Result<Box<RawValue>, Unstorable> {
    let json = String::from_utf8(json).map_err(|_| Unstorable::Uncertain)?;
    RawValue::from_string(json).map_err(|_| Unstorable::Uncertain)
}
