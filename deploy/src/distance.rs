//! How far D1's regions are from each other: round-trip times that were measured and published.
//!
//! Source: Microsoft, "Azure network round-trip latency statistics", median (P50) of the 30 days that ended on
//! 19 June 2024, <https://learn.microsoft.com/azure/networking/azure-network-latency>, from the first region to
//! the second. Each of D1's regions is stood for by one of Azure's: WNAM by West US (California), ENAM by East US
//! (Virginia), WEUR by West Europe (Netherlands), EEUR by Poland North, APAC by Southeast Asia (Singapore), OC by
//! Australia East (Sydney). One way is taken to be half of the round trip; nobody publishes it apart.

use std::time::Duration;

use tidemark_protocol::Region;

/// Pairs of regions and the round trip between them, in milliseconds.
pub const ROUND_TRIPS_MS: [(&str, &str, u16); 15] = [
    ("ENAM", "WNAM", 71),
    ("ENAM", "WEUR", 89),
    ("ENAM", "EEUR", 111),
    ("ENAM", "APAC", 233),
    ("ENAM", "OC", 201),
    ("WNAM", "WEUR", 155),
    ("WNAM", "EEUR", 173),
    ("WNAM", "APAC", 172),
    ("WNAM", "OC", 140),
    ("WEUR", "EEUR", 24),
    ("WEUR", "APAC", 190),
    ("WEUR", "OC", 286),
    ("EEUR", "APAC", 205),
    ("EEUR", "OC", 303),
    ("APAC", "OC", 95),
];

/// The round trip between two regions, if it is known. None at all within one.
pub fn round_trip(one: &Region, other: &Region) -> Option<Duration> {
    let (one, other) = (one.as_str(), other.as_str());
    if one == other {
        return Some(Duration::ZERO);
    }
    let pair = ROUND_TRIPS_MS
        .iter()
        .find(|(a, b, _)| (*a, *b) == (one, other) || (*a, *b) == (other, one));
    pair.map(|(_, _, ms)| Duration::from_millis(u64::from(*ms)))
}

/// One way between two regions: half of [`round_trip`].
pub fn one_way(one: &Region, other: &Region) -> Option<Duration> {
    round_trip(one, other).map(|both| both / 2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn region(name: &str) -> Region {
        name.parse().expect("a region name")
    }

    #[test]
    fn every_two_of_d1_s_regions_have_one_distance() {
        let names: BTreeSet<_> = ROUND_TRIPS_MS
            .iter()
            .flat_map(|(a, b, _)| [*a, *b])
            .collect();
        assert_eq!(
            names.iter().copied().collect::<Vec<_>>(),
            ["APAC", "EEUR", "ENAM", "OC", "WEUR", "WNAM"]
        );
        for one in &names {
            for other in &names {
                let there = round_trip(&region(one), &region(other));
                assert!(there.is_some(), "{one} to {other}");
                assert_eq!(there, round_trip(&region(other), &region(one)));
            }
        }
        let pairs: BTreeSet<_> = ROUND_TRIPS_MS
            .iter()
            .map(|(a, b, _)| BTreeSet::from([*a, *b]))
            .collect();
        assert_eq!(pairs.len(), ROUND_TRIPS_MS.len(), "a pair is listed twice");
    }

    #[test]
    fn one_way_is_half_and_strange_regions_have_none() {
        let ms = Duration::from_millis;
        assert_eq!(one_way(&region("weur"), &region("enam")), Some(ms(89) / 2));
        assert_eq!(one_way(&region("OC"), &region("OC")), Some(Duration::ZERO));
        assert_eq!(one_way(&region("OC"), &region("moon")), None);
    }
}
