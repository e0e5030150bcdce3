//! A histogram out of Prometheus text, for percentiles of what came between two looks.

use std::collections::BTreeMap;

/// Counts at or below each bound, over all labels. Bounds are kept as their bits, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    /// Adds up every series of `name` whose labels contain `label`.
    pub fn parse(text: &str, name: &str, label: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix("_bucket{")) else { continue };
            let Some((labels, count)) = rest.split_once('}') else { continue };
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            let bound = match bound {
                Some("+Inf") => f64::INFINITY,
                Some(bound) => match bound.parse::<f64>() {
                    Ok(bound) => bound,
                    Err(_) => continue,
                },
                None => continue,
            };
            if labels.contains(label) {
                *counts.entry(bound.to_bits()).or_default() += count.trim().parse::<f64>().unwrap_or(0.0) as u64;
            }
        }
        Self(counts)
    }

    /// What has been counted since an earlier look; everything, when the process behind it began anew in between.
    pub fn since(&self, earlier: &Self) -> Self {
        if self.count() < earlier.count() {
            return self.clone();
        }
        let before = |bound: &u64| earlier.0.get(bound).copied().unwrap_or(0);
        Self(self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(bound)))).collect())
    }

    pub fn count(&self) -> u64 {
        self.0.values().next_back().copied().unwrap_or(0)
    }

    /// Below this lies that part of all, 0.99 for the 99th percentile; None of nothing. Within a bucket values are taken to
    /// be spread evenly, as Prometheus does.
    #[allow(clippy::cast_precision_loss)] // a percentile is no exact figure
    pub fn percentile(&self, part: f64) -> Option<f64> {
        let wanted = self.count() as f64 * part;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, &count) in &self.0 {
            let (bound, count) = (f64::from_bits(*bound), count as f64);
            if count >= wanted && count > below {
                let inside = (wanted - below) / (count - below);
                return Some(if bound.is_finite() { lower + (bound - lower) * inside } else { lower });
            }
            (lower, below) = (bound, count);
        }
        None
    }
}

/// The sum of a counter's or gauge's series whose labels contain `label`.
pub fn total(text: &str, name: &str, label: &str) -> u64 {
    let series = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once('}'));
    series
        .filter(|(labels, _)| labels.contains(label))
        .map(|(_, value)| value.trim().parse::<f64>().unwrap_or(0.0) as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_between_two_looks() {
        let text = |a: u64, b: u64| {
            format!(
                "x_bucket{{p=\"q\",le=\"0.1\"}} {a}\nx_bucket{{p=\"q\",le=\"1\"}} {b}\nx_bucket{{p=\"q\",le=\"+Inf\"}} {b}\n"
            )
        };
        let (early, late) = (Histogram::parse(&text(10, 10), "x", ""), Histogram::parse(&text(12, 20), "x", "p=\"q\""));
        let between = late.since(&early);
        assert_eq!(between.count(), 10);
        assert_eq!(between.percentile(0.1), Some(0.05));
        assert_eq!(between.percentile(0.6), Some(0.1 + 0.9 * 0.5));
        assert_eq!(early.since(&late), early);
        assert_eq!(Histogram::default().percentile(0.5), None);
        assert_eq!(total("y{a=\"1\"} 3\ny{a=\"2\"} 4\n", "y", "a=\"2\""), 4);
    }
}
