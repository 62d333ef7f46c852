//! How far the dev cluster's replicas are: `WEUR=40ms,APAC=90ms`.

use std::str::FromStr;
use std::time::Duration;

use tidemark_protocol::Region;

use crate::config::Period;

/// Replicas of a dev cluster and the one-way delay between each and the primary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wan(pub(crate) Vec<(Region, Duration)>);

/// Replicas unless told otherwise: about as far as the Atlantic and the Pacific are wide.
pub(crate) const WAN_DEFAULT: &str = "WEUR=40ms,APAC=90ms";
/// Most replicas of a dev cluster: all of them share one process.
const REPLICAS_MAX: usize = 16;

/// The text does not tell delays by region.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WanError {
    #[error("'{part}' is not of the form REGION=DELAY, such as WEUR=40ms")]
    Form { part: String },
    #[error("'{part}': {reason}")]
    Part { part: String, reason: String },
    #[error("region {region} is given twice")]
    Twice { region: Region },
    #[error("{got} replicas are given, expected at most {max}", max = REPLICAS_MAX)]
    TooMany { got: usize },
}

impl FromStr for Wan {
    type Err = WanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut places: Vec<(Region, Duration)> = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let bad = |reason: String| WanError::Part {
                part: part.to_owned(),
                reason,
            };
            let (region, delay) = part.split_once('=').ok_or_else(|| WanError::Form {
                part: part.to_owned(),
            })?;
            let region: Region = region.parse().map_err(|error| bad(format!("{error}")))?;
            let Period(delay) = delay.parse().map_err(|error| bad(format!("{error}")))?;
            if places.iter().any(|(other, _)| *other == region) {
                return Err(WanError::Twice { region });
            }
            places.push((region, delay));
        }
        if places.len() > REPLICAS_MAX {
            return Err(WanError::TooMany { got: places.len() });
        }
        Ok(Self(places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_by_region() {
        let Wan(places) = WAN_DEFAULT.parse().expect("the default is well-formed");
        let texts: Vec<_> = places
            .iter()
            .map(|(region, delay)| format!("{region} {delay:?}"))
            .collect();
        assert_eq!(texts, ["WEUR 40ms", "APAC 90ms"]);
        assert_eq!("".parse(), Ok(Wan(Vec::new())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("WEUR", "'WEUR' is not of the form"),
            ("WEUR=40", "'WEUR=40': '40' is not a length of time"),
            ("4=40ms", "'4=40ms': '4' is not a region name"),
            ("weur=1ms,WEUR=2ms", "region WEUR is given twice"),
        ] {
            let error = text.parse::<Wan>().expect_err(text).to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
