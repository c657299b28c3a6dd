//! Generations of a collection: each is a store of its own, with the same documents and the vectors of one model.
//!
//! One generation is served. Which one is written in the manifests: the one that was activated last. So a change of the generation is
//! one manifest that is replaced, and a crash leaves the one or the other.

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::domain::TenantId;

/// What separates tenant and name in the names of files; it can be in neither.
const TENANT_END: char = '@';
/// What separates the name of a collection and the number of a generation in the names of files; no name has it.
const NUMBER_START: char = '~';

/// The number of the generation with which a collection was created.
pub(super) const FIRST: u32 = 1;

/// What the manifest of a generation says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredSettings {
    /// What it is of.
    #[serde(flatten)]
    pub(super) settings: Settings,
    /// When it was activated, counted in activations of its collection; `None` if it never was. The generation with which a collection
    /// was created has no such member, nor have files of versions that knew no generations.
    #[serde(default = "created", skip_serializing_if = "is_created")]
    pub(super) activation: Option<u64>,
}

/// The activation of the generation with which a collection was created.
#[expect(clippy::unnecessary_wraps, reason = "the default of an optional member")]
fn created() -> Option<u64> {
    Some(0)
}

fn is_created(activation: &Option<u64>) -> bool {
    *activation == created()
}

impl StoredSettings {
    /// Those of the generation with which a collection is created.
    pub(super) fn of_created(settings: Settings) -> StoredSettings {
        StoredSettings { settings, activation: created() }
    }

    /// Those of a generation that is to be filled before it is served.
    pub(super) fn of_draft(settings: Settings) -> StoredSettings {
        StoredSettings { settings, activation: None }
    }
}

/// The name that the files of a generation begin with: `[TENANT@]NAME[~NUMBER]`. Those of the default tenant and of the first generation
/// have the name of the collection only.
pub(super) fn stored_name(tenant: &TenantId, name: &str, number: u32) -> String {
    let number = if number == FIRST { String::new() } else { format!("{NUMBER_START}{number}") };
    if tenant.is_default() {
        format!("{name}{number}")
    } else {
        format!("{}{TENANT_END}{name}{number}", tenant.as_str())
    }
}

/// The tenant, the name and the generation's number by the [`stored_name`] of its files.
pub(super) fn owner_of(stored: &str) -> (TenantId, &str, u32) {
    let numbered = stored.rsplit_once(NUMBER_START);
    let (named, number) = numbered
        .and_then(|(named, number)| Some((named, number.parse().ok().filter(|&number| number > FIRST)?)))
        .unwrap_or((stored, FIRST));
    let of_tenant = named
        .split_once(TENANT_END)
        .and_then(|(tenant, name)| Some((TenantId::named(tenant)?, name)))
        .filter(|(tenant, _)| !tenant.is_default());
    let (tenant, name) = of_tenant.unwrap_or_else(|| (TenantId::default(), named));
    (tenant, name, number)
}

#[cfg(test)]
mod tests {
    use likewise_index::Metric;

    use super::*;
    use crate::search::settings::Indexed;

    #[test]
    fn a_stored_name_is_read_as_it_was_written() {
        let acme = TenantId::named("acme").unwrap();
        for tenant in [TenantId::default(), acme] {
            for number in [FIRST, 2, 41] {
                let stored = stored_name(&tenant, "a-b_c", number);
                assert_eq!(owner_of(&stored), (tenant.clone(), "a-b_c", number), "{stored}");
            }
        }
        assert_eq!(stored_name(&TenantId::default(), "products", FIRST), "products");
        assert_eq!(owner_of("products~x"), (TenantId::default(), "products~x", FIRST));
    }

    #[test]
    fn settings_of_versions_without_generations_are_those_of_a_created_collection() {
        let settings = Settings { metric: Metric::Cosine, dim: 3, model: None, index: Indexed::Auto };
        let former = serde_json::to_string(&settings).unwrap();
        let read: StoredSettings = serde_json::from_str(&former).unwrap();
        assert_eq!((read.activation, &read.settings), (Some(0), &settings));
        assert_eq!(serde_json::to_string(&read).unwrap(), former, "and are written as they were");
        for stored in
            [StoredSettings::of_draft(settings.clone()), StoredSettings { settings, activation: Some(7) }]
        {
            let json = serde_json::to_string(&stored).unwrap();
            let read: StoredSettings = serde_json::from_str(&json).unwrap();
            assert_eq!((read.activation, read.settings), (stored.activation, stored.settings), "{json}");
        }
    }
}
