//! How the members of chunks add up: an allow-list. Whatever has no rule has no certain sum.

use crate::dialects::Unstorable;
use serde_json::{Map, Value, json};

/// How what is said of one member in several chunks becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialects) enum Rule {
    /// Text that grows from chunk to chunk.
    Text,
    /// A list that grows by what each chunk holds.
    List,
    /// A list that is repeated as a whole, and may have grown at its end.
    Snapshot,
    /// Said once or again in the same way. An object may be said member by member.
    Agree(Type),
    /// Said once: of equal pieces it is unknown whether they are one. An object may be said member by member.
    Once(Type),
    /// The last value holds.
    Last(Type),
    /// Belongs to the delivery and not to the answer.
    Dropped(Type),
}

/// A type of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialects) enum Type {
    Text,
    Number,
    Bool,
    List,
    Object,
    /// Text, a number or a truth value.
    Scalar,
}

/// Members with their rules.
pub(in crate::dialects) type Rules = [(&'static str, Rule)];

/// Adds a member to what is known, by its rule. What says nothing needs no rule.
pub(in crate::dialects) fn add(
    known: &mut Map<String, Value>,
    rules: &Rules,
    name: String,
    value: Value,
) -> Result<(), Unstorable> {
    let rule = rules.iter().find(|(known, _)| *known == name).map(|(_, rule)| *rule);
    if says_nothing(&value) {
        if !matches!(rule, Some(Rule::Dropped(_))) {
            known.entry(name).or_insert(value);
        }
        return Ok(());
    }
    match rule.ok_or(Unstorable::UnknownMember)? {
        Rule::Text => grow(known, name, value),
        Rule::List => extend(known, name, value),
        Rule::Snapshot => replace_by_longer(known, name, value),
        Rule::Agree(expected) => typed(expected, &value).and_then(|()| once(known, name, value, true)),
        Rule::Once(expected) => typed(expected, &value).and_then(|()| once(known, name, value, false)),
        Rule::Last(expected) => typed(expected, &value).map(|()| _ = known.insert(name, value)),
        Rule::Dropped(expected) => typed(expected, &value),
    }
}

/// Null and the empty say nothing.
pub(in crate::dialects) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The object called `name`, which is said member by member.
pub(in crate::dialects) fn within(
    known: &mut Map<String, Value>,
    name: String,
) -> Result<&mut Map<String, Value>, Unstorable> {
    let inner = known.entry(name).or_insert(Value::Null);
    if says_nothing(inner) {
        *inner = json!({});
    }
    inner.as_object_mut().ok_or(Unstorable::Uncertain)
}

fn typed(expected: Type, value: &Value) -> Result<(), Unstorable> {
    let is_typed = match expected {
        Type::Text => value.is_string(),
        Type::Number => value.is_number(),
        Type::Bool => value.is_boolean(),
        Type::List => value.is_array(),
        Type::Object => value.is_object(),
        Type::Scalar => value.is_string() || value.is_number() || value.is_boolean(),
    };
    is_typed.then_some(()).ok_or(Unstorable::UnknownMember)
}

fn grow(known: &mut Map<String, Value>, name: String, more: Value) -> Result<(), Unstorable> {
    let Value::String(more) = more else { return Err(Unstorable::UnknownMember) };
    let so_far = known.entry(name).or_insert(Value::Null);
    if let Value::String(so_far) = so_far {
        so_far.push_str(&more);
        return Ok(());
    }
    begin(so_far, Value::String(more))
}

fn extend(known: &mut Map<String, Value>, name: String, more: Value) -> Result<(), Unstorable> {
    let Value::Array(more) = more else { return Err(Unstorable::UnknownMember) };
    let so_far = known.entry(name).or_insert(Value::Null);
    if let Value::Array(so_far) = so_far {
        so_far.extend(more);
        return Ok(());
    }
    begin(so_far, Value::Array(more))
}

fn replace_by_longer(known: &mut Map<String, Value>, name: String, whole: Value) -> Result<(), Unstorable> {
    let Value::Array(whole) = whole else { return Err(Unstorable::UnknownMember) };
    let before = known.entry(name).or_insert(Value::Null);
    if let Value::Array(before) = before
        && whole.starts_with(before)
    {
        *before = whole;
        return Ok(());
    }
    begin(before, Value::Array(whole))
}

/// Takes the place of what says nothing.
fn begin(nothing: &mut Value, value: Value) -> Result<(), Unstorable> {
    if !says_nothing(nothing) {
        return Err(Unstorable::Uncertain);
    }
    *nothing = value;
    Ok(())
}

fn once(
    known: &mut Map<String, Value>,
    name: String,
    value: Value,
    may_repeat: bool,
) -> Result<(), Unstorable> {
    match (known.get_mut(&name), value) {
        (Some(_), value) if says_nothing(&value) => Ok(()),
        (Some(Value::Object(before)), Value::Object(more)) if !before.is_empty() => {
            more.into_iter().try_for_each(|(name, value)| once(before, name, value, may_repeat))
        }
        (Some(before), value) if !says_nothing(before) => {
            let is_piece = value.is_string() || value.is_array();
            if *before == value && (may_repeat || !is_piece) { Ok(()) } else { Err(Unstorable::Uncertain) }
        }
        (_, value) => {
            known.insert(name, value);
            Ok(())
        }
    }
}
