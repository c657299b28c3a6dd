//! Entries of reasoning with their signatures (OpenRouter's), which come in fragments.
//!
//! Fragments of one entry share `type` and `index`; the text comes in pieces, the signature by itself (LangChain's pull
//! request 36401 and agno's 8802 describe the shape). Entries without an index are whole.

use serde_json::{Map, Value};

use crate::dialects::Unstorable;
use crate::dialects::choices::{PARTS_MAX, Rule, Rules, Type, add, place, says_nothing};

const OF_ENTRY: &Rules = &[
    ("type", Rule::Agree(Type::Text)),
    ("index", Rule::Agree(Type::Number)),
    ("id", Rule::Agree(Type::Text)),
    ("format", Rule::Agree(Type::Text)),
    ("text", Rule::Text),
    ("summary", Rule::Text),
    ("data", Rule::Once(Type::Text)),
    ("signature", Rule::Once(Type::Text)),
];

/// The entries so far, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Details(Vec<Map<String, Value>>);

impl Details {
    pub(super) fn add(&mut self, entries: Vec<Value>) -> Result<(), Unstorable> {
        for entry in entries {
            let Value::Object(entry) = entry else { return Err(Unstorable::UnknownMember) };
            let known = self.entry(&entry)?;
            entry.into_iter().try_for_each(|(name, value)| add(known, OF_ENTRY, name, value))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Option<Value> {
        let entries: Vec<Value> = self.0.into_iter().map(Value::Object).collect();
        (!entries.is_empty()).then_some(Value::Array(entries))
    }

    /// The entry that a fragment belongs to.
    fn entry(&mut self, fragment: &Map<String, Value>) -> Result<&mut Map<String, Value>, Unstorable> {
        let index = fragment.get("index").filter(|index| !index.is_null());
        let at = match index {
            Some(index) => {
                place(Some(index.clone()))?;
                self.0.iter().position(|known| is_same(known, fragment))
            }
            None => None,
        };
        if at.is_none() {
            // Each fragment with an index looks through all entries.
            if index.is_some() && self.0.len() as u64 >= PARTS_MAX {
                return Err(Unstorable::UnknownMember);
            }
            self.0.push(Map::new());
        }
        let at = at.unwrap_or(self.0.len() - 1);
        Ok(&mut self.0[at])
    }
}

/// Whether two fragments are of one entry. One that leaves out the type is of whichever entry has its index.
fn is_same(known: &Map<String, Value>, fragment: &Map<String, Value>) -> bool {
    let (known_type, own_type) = (said(known, "type"), said(fragment, "type"));
    known.get("index") == fragment.get("index") && (own_type.is_none() || own_type == known_type)
}

fn said<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !says_nothing(value))
}
