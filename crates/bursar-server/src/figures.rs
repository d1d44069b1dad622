//! Figures as the wire shows them: cents, dollars, percents.

use bursar_core::cents_half_up;
pub use bursar_core::usd_string as usd;

/// Nano-dollars as cents, rounded half up once, within what an integer of 64 bits shows.
pub fn cents(nanos: i128) -> i64 {
    i64::try_from(cents_half_up(nanos)).unwrap_or(i64::MAX)
}

/// A sum as far as 64 bits show it.
pub fn integer(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

/// What part of a limit is used, in percent with two decimals; 0 when there is no limit.
pub fn percent(used: i128, limit: i128) -> f64 {
    if limit <= 0 {
        return 0.0;
    }
    let hundredths = used.saturating_mul(10_000) / limit;
    hundredths as f64 / 100.0
}

/// An average with two decimals; nothing over nothing.
pub fn average(sum: i128, count: i64) -> Option<f64> {
    (count > 0).then(|| (sum.saturating_mul(100) / i128::from(count)) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_may_pass_a_hundred_and_need_a_limit() {
        assert!((percent(1, 3) - 33.33).abs() < 1e-9);
        assert!((percent(3, 2) - 150.0).abs() < 1e-9);
        assert!(percent(3, 0).abs() < 1e-9);
        assert_eq!(average(0, 0), None);
        assert!(average(10, 4).is_some_and(|mean| (mean - 2.5).abs() < 1e-9));
    }
}
