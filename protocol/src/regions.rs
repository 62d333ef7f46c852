//! Which regions there are, and which jurisdictions they lie in.
//!
//! A database with a jurisdiction lies in regions of that alone: it is made only by a cell in one, shipped only
//! to replicas in one, and a replica elsewhere that is sent one all the same keeps nothing of it. A region that
//! is not listed lies in no jurisdiction. All nodes of a cluster must be told the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Failure, FailureKind};
use crate::id::Region;
use crate::node::CreateDatabase;

/// D1's regions, any of which may be a hint.
const HINTS: [&str; 6] = ["wnam", "enam", "weur", "eeur", "apac", "oc"];
/// D1's jurisdictions, which exist whether or not a region lies in them.
const JURISDICTIONS: [&str; 3] = ["eu", "fedramp", "us"];
/// What D1's regions lie in as long as nothing else is said. None of them is FedRAMP-authorised by its name.
const REGIONS: [(&str, &[&str]); 4] = [
    ("WEUR", &["eu"]),
    ("EEUR", &["eu"]),
    ("WNAM", &["us"]),
    ("ENAM", &["us"]),
];
/// Longest name of a jurisdiction, in bytes.
const JURISDICTION_BYTES_MAX: usize = 32;

/// One region, as configured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSettings {
    /// The jurisdictions that it lies in.
    #[serde(default)]
    pub jurisdictions: BTreeSet<String>,
}

/// The regions of a cluster that there is something to say of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Regions(BTreeMap<Region, RegionSettings>);

/// D1's regions: western and eastern Europe in `eu`, western and eastern North America in `us`.
impl Default for Regions {
    fn default() -> Self {
        let settings = |names: &[&str]| RegionSettings {
            jurisdictions: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let regions = REGIONS.map(|(region, jurisdictions)| {
            let region = region.parse().expect("a region's name");
            (region, settings(jurisdictions))
        });
        Self(regions.into())
    }
}

impl Regions {
    /// Whether data of this jurisdiction may lie in `region`. Without a jurisdiction it may lie anywhere.
    pub fn allow(&self, jurisdiction: Option<&str>, region: &Region) -> bool {
        let Some(jurisdiction) = jurisdiction else {
            return true;
        };
        let settings = self.0.get(region);
        settings.is_some_and(|settings| settings.jurisdictions.contains(jurisdiction))
    }

    /// The jurisdictions that exist.
    fn jurisdictions(&self) -> BTreeSet<&str> {
        let configured = self.0.values().flat_map(|region| &region.jurisdictions);
        let configured = configured.map(String::as_str);
        JURISDICTIONS.into_iter().chain(configured).collect()
    }

    /// Whether a cell in `region` may make this database.
    pub fn check(&self, create: &CreateDatabase, region: &Region) -> Result<(), Failure> {
        if let Some(hint) = &create.primary_location_hint {
            let own = self.0.keys().chain([region]);
            let own: BTreeSet<_> = own.map(|name| name.as_str().to_ascii_lowercase()).collect();
            if !HINTS.contains(&hint.as_str()) && !own.contains(hint) {
                let own = own.iter().map(String::as_str);
                let own = own.filter(|name| !HINTS.contains(name));
                let known: Vec<_> = HINTS.into_iter().chain(own).collect();
                let text = format!("'{hint}' is none of {}", known.join(", "));
                return Err(invalid("primary_location_hint", &text));
            }
        }
        let Some(jurisdiction) = &create.jurisdiction else {
            return Ok(());
        };
        let known = self.jurisdictions();
        if !known.contains(jurisdiction.as_str()) {
            let known: Vec<_> = known.into_iter().collect();
            let text = format!("'{jurisdiction}' is none of {}", known.join(", "));
            return Err(invalid("jurisdiction", &text));
        }
        if !self.allow(Some(jurisdiction), region) {
            let text = format!(
                "region {} of this cell is not in jurisdiction '{jurisdiction}'",
                region.as_str().to_ascii_lowercase()
            );
            return Err(invalid("jurisdiction", &text));
        }
        Ok(())
    }
}

/// Whether `name` may name a jurisdiction: lowercase letters, digits and `-`.
pub fn is_jurisdiction(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=JURISDICTION_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

fn invalid(property: &str, reason: &str) -> Failure {
    let text = format!("Invalid property: {property} => {reason}");
    Failure::new(FailureKind::BadRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        name.parse().expect("a region's name")
    }

    fn create(hint: Option<&str>, jurisdiction: Option<&str>) -> CreateDatabase {
        CreateDatabase {
            name: "x".to_owned(),
            primary_location_hint: hint.map(str::to_owned),
            jurisdiction: jurisdiction.map(str::to_owned),
            replicated: true,
            request: None,
        }
    }

    fn own() -> Regions {
        let settings = |name: &str| RegionSettings {
            jurisdictions: [name.to_owned()].into(),
        };
        let regions = [
            (region("frankfurt"), settings("eu")),
            (region("zurich"), settings("ch")),
            (region("tokyo"), RegionSettings::default()),
        ];
        Regions(regions.into())
    }

    fn refusal(
        regions: &Regions,
        cell: &str,
        hint: Option<&str>,
        jurisdiction: Option<&str>,
    ) -> Option<String> {
        let checked = regions.check(&create(hint, jurisdiction), &region(cell));
        checked.err().map(|failure| {
            assert_eq!(failure.kind, FailureKind::BadRequest);
            failure.message
        })
    }

    #[test]
    fn data_stays_in_the_regions_of_its_jurisdiction() {
        let regions = Regions::default();
        assert!(regions.allow(Some("eu"), &region("weur")));
        assert!(!regions.allow(Some("eu"), &region("enam")));
        assert!(!regions.allow(Some("fedramp"), &region("enam")));
        assert!(regions.allow(None, &region("mars")));
        assert!(!own().allow(Some("eu"), &region("weur")), "not listed");
        assert!(own().allow(Some("ch"), &region("Zurich")));
    }

    #[test]
    fn hints_of_d1_and_configured_regions_are_taken_and_others_refused() {
        for hint in ["weur", "oc", "tokyo", "bern"] {
            assert_eq!(refusal(&own(), "bern", Some(hint), None), None, "{hint}");
        }
        assert_eq!(
            refusal(&own(), "bern", Some("mars"), None).as_deref(),
            Some(
                "Invalid property: primary_location_hint => 'mars' is none of wnam, enam, weur, \
                 eeur, apac, oc, bern, frankfurt, tokyo, zurich"
            )
        );
    }

    #[test]
    fn jurisdiction_must_exist_and_hold_the_cell() {
        let refused = |cell, jurisdiction| refusal(&own(), cell, None, Some(jurisdiction));
        assert_eq!(refused("frankfurt", "eu"), None);
        assert_eq!(refused("zurich", "ch"), None);
        assert_eq!(
            refused("tokyo", "eu").as_deref(),
            Some(
                "Invalid property: jurisdiction => region tokyo of this cell is not in jurisdiction 'eu'"
            )
        );
        assert_eq!(
            refused("frankfurt", "mars").as_deref(),
            Some("Invalid property: jurisdiction => 'mars' is none of ch, eu, fedramp, us")
        );
    }
}
