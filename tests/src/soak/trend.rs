//! Whether something grows: a line through its values, and their middle early and late.

use serde::Serialize;

/// A value over time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Series(Vec<(f64, f64)>);

/// How a value has gone.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Trend {
    /// Seconds from the first value to the last.
    pub seconds: f64,
    /// Growth per hour of the line that fits best.
    pub per_hour: f64,
    /// The middle value of the first quarter.
    pub early: f64,
    /// The middle value of the last quarter.
    pub late: f64,
    /// The greatest.
    pub most: f64,
}

impl Series {
    /// Takes in the value at a time, in seconds, later than those before.
    pub fn push(&mut self, seconds: f64, value: f64) {
        self.0.push((seconds, value));
    }

    /// The trend from this time on. `None` for fewer than four values.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn trend(&self, from: f64) -> Option<Trend> {
        let values: Vec<_> = self
            .0
            .iter()
            .filter(|(at, _)| *at >= from)
            .copied()
            .collect();
        let [(first, _), .., (last, _)] = values[..] else {
            return None;
        };
        let quarter = values.len() / 4;
        if quarter == 0 {
            return None;
        }
        let count = values.len() as f64;
        let mean_at = values.iter().map(|(at, _)| at).sum::<f64>() / count;
        let mean = values.iter().map(|(_, value)| value).sum::<f64>() / count;
        let (mut with, mut spread) = (0.0, 0.0);
        for (at, value) in &values {
            with += (at - mean_at) * (value - mean);
            spread += (at - mean_at).powi(2);
        }
        Some(Trend {
            seconds: last - first,
            per_hour: if spread > 0.0 {
                with / spread * 3600.0
            } else {
                0.0
            },
            early: middle(&values[..quarter]),
            late: middle(&values[values.len() - quarter..]),
            most: values
                .iter()
                .map(|(_, value)| *value)
                .fold(f64::MIN, f64::max),
        })
    }
}

/// The middle of some values, at least one.
fn middle(values: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn series(value: impl Fn(f64) -> f64) -> Series {
        let mut series = Series::default();
        for second in 0..600 {
            let at = f64::from(second);
            series.push(at, value(at));
        }
        series
    }

    #[test]
    fn what_grows_is_told_from_what_swings() {
        let grows = series(|at| 100.0 + at / 60.0).trend(0.0).unwrap();
        assert!((grows.per_hour - 60.0).abs() < 0.01, "{grows:?}");
        assert!(grows.late > grows.early + 7.0, "{grows:?}");
        let swings = series(|at| 100.0 + 10.0 * (at / 5.0).sin())
            .trend(0.0)
            .unwrap();
        assert!(swings.per_hour.abs() < 6.0, "{swings:?}");
        assert!((swings.late - swings.early).abs() < 2.0, "{swings:?}");
    }

    #[test]
    fn what_comes_before_is_no_part_of_it() {
        let settles = series(|at| at.min(100.0));
        let trend = settles.trend(100.0).unwrap();
        assert_eq!(
            (trend.per_hour, trend.early, trend.late),
            (0.0, 100.0, 100.0)
        );
        assert_eq!(trend.seconds, 499.0);
        assert!(settles.trend(0.0).unwrap().per_hour > 100.0);
    }

    #[test]
    fn few_values_have_no_trend() {
        let mut few = Series::default();
        for at in [0.0, 1.0, 2.0] {
            assert_eq!(few.trend(0.0), None);
            few.push(at, 1.0);
        }
        assert_eq!(few.trend(0.0), None);
    }
}
