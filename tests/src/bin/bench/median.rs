//! The middle one of several rounds.

/// The median of one figure over all rounds.
pub(crate) fn median<const N: usize>(rounds: &[[f64; N]], figure: usize) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(|round| round[figure]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
