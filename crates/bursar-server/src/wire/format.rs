//! Formatting of numbers on the wire: cents, dollars, percentages, averages, percentiles.

pub(crate) use bursar_core::{cents_half_up as cents, usd_string as usd};
use bursar_store::{LATENCY_BOUNDS_MS, LATENCY_BUCKETS};

/// The used part of a limit in percent with two decimals. 0 without a limit.
pub(crate) fn percent(used: i128, limit: i128) -> f64 {
    if limit <= 0 {
        return 0.0;
    }
    let hundredths = used.saturating_mul(10_000) / limit;
    hundredths as f64 / 100.0
}

/// A part of a whole, from 0 to 1 with four decimals. 0 if the whole is 0.
pub(crate) fn share(part: i64, whole: i64) -> f64 {
    if whole <= 0 {
        return 0.0;
    }
    (i128::from(part) * 10_000 / i128::from(whole)) as f64 / 10_000.0
}

/// An average with two decimals. `None` without values.
pub(crate) fn average(sum: i128, count: i64) -> Option<f64> {
    (count > 0).then(|| (sum.saturating_mul(100) / i128::from(count)) as f64 / 100.0)
}

/// A percentile of the latency, estimated from a histogram. `None` without calls.
///
/// The calls of a bucket count as spread evenly over it. Above the last bound the result is that
/// bound, because the histogram does not tell how far they exceed it.
pub(crate) fn latency_percentile(buckets: &[i64; LATENCY_BUCKETS], percent: i64) -> Option<i64> {
    let calls: i128 = buckets.iter().map(|calls| i128::from(*calls)).sum();
    if calls <= 0 {
        return None;
    }
    let rank = (calls * i128::from(percent) + 99).div_euclid(100);
    let (mut below, mut lower) = (0, 0);
    for (in_bucket, upper) in buckets.iter().zip(LATENCY_BOUNDS_MS) {
        let in_bucket = i128::from(*in_bucket);
        if in_bucket > 0 && below + in_bucket >= rank {
            let within = i128::from(upper - lower) * (rank - below) / in_bucket;
            return i64::try_from(i128::from(lower) + within).ok();
        }
        below += in_bucket;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(calls: &[(usize, i64)], expected: [Option<i64>; 3]) {
        let mut buckets = [0; LATENCY_BUCKETS];
        for (bucket, calls) in calls {
            buckets[*bucket] = *calls;
        }
        assert_eq!([50, 95, 99].map(|percent| latency_percentile(&buckets, percent)), expected);
    }

    #[test]
    fn percentiles_lie_in_the_bucket_of_their_call() {
        check(&[], [None; 3]);
        check(&[(0, 1)], [Some(50); 3]);
        check(&[(0, 100)], [Some(25), Some(47), Some(49)]);
        check(&[(0, 50), (4, 49), (5, 1)], [Some(50), Some(483), Some(500)]);
        check(&[(15, 3)], [Some(40_000); 3]);
        check(&[(1, 98), (15, 2)], [Some(75), Some(98), Some(40_000)]);
    }

    #[test]
    fn percents_may_pass_a_hundred_and_need_a_limit() {
        assert!((percent(1, 3) - 33.33).abs() < 1e-9);
        assert!((percent(3, 2) - 150.0).abs() < 1e-9);
        assert!(percent(3, 0).abs() < 1e-9);
        assert!((share(8, 9) - 0.8888).abs() < 1e-12);
        assert!(share(0, 0).abs() < 1e-12);
        assert_eq!(average(0, 0), None);
        assert!(average(10, 4).is_some_and(|mean| (mean - 2.5).abs() < 1e-9));
    }
}
