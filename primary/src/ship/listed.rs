//! Which databases may go where, as the catalogue says.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tidemark_protocol::catalogue::CatalogueChanges;
use tidemark_protocol::{Catalogue, DatabaseId, Region, Regions};

/// The databases of the newest catalogue, with their jurisdictions. What is not listed goes nowhere: it may have a
/// jurisdiction that is not known here yet.
#[derive(Debug, Default)]
pub(crate) struct Listed(RwLock<HashMap<DatabaseId, Option<String>>>);

impl Listed {
    /// Takes a newer catalogue.
    pub(crate) fn adopt(&self, catalogue: &Catalogue) {
        let entries = catalogue.entries();
        let entries = entries.map(|entry| (entry.uuid, entry.jurisdiction.clone()));
        let entries = entries.collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = entries;
    }

    /// Takes what is new in a newer catalogue.
    pub(crate) fn change(&self, changes: &CatalogueChanges) {
        let mut listed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (database, entry) in changes.databases() {
            match entry {
                Some(entry) => listed.insert(database, entry.jurisdiction.clone()),
                None => listed.remove(&database),
            };
        }
    }

    /// Whether a node in `region` may hold this database. All hold the catalogue.
    pub(crate) fn may_lie_in(
        &self,
        database: DatabaseId,
        region: &Region,
        regions: &Regions,
    ) -> bool {
        let listed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let jurisdiction = listed.get(&database);
        database == DatabaseId::CATALOGUE
            || jurisdiction
                .is_some_and(|jurisdiction| regions.allow(jurisdiction.as_deref(), region))
    }
}
