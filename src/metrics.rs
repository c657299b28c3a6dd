//! The registry of metrics. Each module registers the metrics that it counts, in a struct of its own.
//!
//! The handles can be read back, so the numbers of `/v1/stats` and of `/metrics` are the same numbers. Counters get the
//! suffix `_total` when they are exported.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{self, Metric, Unit};

use crate::labels::Label;

/// What the names of all metrics begin with.
const PREFIX: &str = "likewise";

/// A counter of fractions.
pub type FloatCounter = Counter<f64, AtomicU64>;

/// A gauge of fractions.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Everything that `/metrics` exports.
#[derive(Debug)]
pub struct Registry {
    exported: registry::Registry,
    descriptions: Vec<MetricDescription>,
}

/// The labels of a metric, each with its values if they are a closed list.
pub type LabelDescriptions = Vec<(&'static str, &'static [&'static str])>;

/// A metric as `docs/reference/metrics.md` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    /// The name under which it is exported.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: LabelDescriptions,
    /// What it counts.
    pub help: String,
}

/// The metrics of one module.
pub trait ModuleMetrics: Sized {
    /// Registers the metrics, at zero.
    fn register(registry: &mut Registry) -> Self;
}

/// A metric for each label of a closed list.
pub struct ByLabel<L, M> {
    family: Family<[(&'static str, &'static str); 1], M>,
    name: &'static str,
    labels: PhantomData<fn(L)>,
}

impl Registry {
    /// Without metrics.
    #[expect(
        clippy::new_without_default,
        reason = "a second registry exports other numbers: say so at the call"
    )]
    pub fn new() -> Registry {
        Registry { exported: registry::Registry::with_prefix(PREFIX), descriptions: Vec::new() }
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, help, Vec::new(), Counter::default())
    }

    /// A counter of fractions.
    pub fn float_counter(&mut self, name: &str, help: &str) -> FloatCounter {
        self.add(name, help, Vec::new(), FloatCounter::default())
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, help, Vec::new(), Gauge::default())
    }

    /// A gauge of fractions.
    pub fn float_gauge(&mut self, name: &str, help: &str) -> FloatGauge {
        self.add(name, help, Vec::new(), FloatGauge::default())
    }

    /// A histogram with these upper bounds of its buckets.
    pub fn histogram(&mut self, name: &str, help: &str, buckets: impl IntoIterator<Item = f64>) -> Histogram {
        self.add(name, help, Vec::new(), Histogram::new(buckets))
    }

    /// A histogram of times, from 0.1 ms to a minute. Its name ends in `_seconds`.
    pub fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        let metric = Histogram::new(exponential_buckets(0.000_1, 2.0, 20));
        self.describe(&format!("{name}_seconds"), help, Vec::new(), Histogram::TYPE);
        self.exported.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// A metric for each set of labels. `labels` are the fields of `S`.
    pub fn family<S, M>(&mut self, name: &str, help: &str, labels: &[&'static str]) -> Family<S, M>
    where
        S: EncodeLabelSet + Clone + Eq + std::hash::Hash + fmt::Debug + Send + Sync + 'static,
        M: Metric + TypedMetric + Default,
    {
        let labels = labels.iter().map(|label| (*label, &[][..])).collect();
        self.add(name, help, labels, Family::default())
    }

    /// A metric for each variant of `L`, under the label `label`.
    pub fn by_label<L, M>(&mut self, name: &str, help: &str, label: &'static str) -> ByLabel<L, M>
    where
        L: Label,
        M: Metric + TypedMetric + Default,
    {
        let family = self.add(name, help, vec![(label, L::WORDS)], Family::default());
        ByLabel { family, name: label, labels: PhantomData }
    }

    /// The metrics, in the order of their registration.
    pub fn descriptions(&self) -> &[MetricDescription] {
        &self.descriptions
    }

    /// The metrics in OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.exported)
            .expect("writing to a string cannot fail: this is a bug");
        text
    }

    fn add<M>(&mut self, name: &str, help: &str, labels: LabelDescriptions, metric: M) -> M
    where
        M: Metric + TypedMetric + Clone,
    {
        self.describe(name, help, labels, M::TYPE);
        self.exported.register(name, help, metric.clone());
        metric
    }

    fn describe(&mut self, name: &str, help: &str, labels: LabelDescriptions, kind: MetricType) {
        let (kind, suffix) = match kind {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", ""),
            MetricType::Info => ("info", "_info"),
            MetricType::Unknown => ("unknown", ""),
        };
        let name = format!("{PREFIX}_{name}{suffix}");
        self.descriptions.push(MetricDescription { name, kind, labels, help: help.to_owned() });
    }
}

impl<L: Label, M: Clone + Default> ByLabel<L, M> {
    /// The metric of one label. It is exported once this was called.
    ///
    /// Cost: a lock and a lookup. Callers on a hot path hold what it returns.
    pub fn with(&self, label: L) -> M {
        self.family.get_or_create(&[(self.name, label.as_str())]).clone()
    }
}

impl<L, M> Clone for ByLabel<L, M> {
    fn clone(&self) -> ByLabel<L, M> {
        ByLabel { family: self.family.clone(), name: self.name, labels: PhantomData }
    }
}

impl<L, M> fmt::Debug for ByLabel<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByLabel").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Metrics of a module that nothing exports, for tests and for commands that do not serve.
pub fn unexported<M: ModuleMetrics>() -> Arc<M> {
    Arc::new(M::register(&mut Registry::new()))
}

/// Resident memory of this process in bytes, from `/proc/self/statm` (proc(5)); 0 if it cannot be read.
pub fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let Ok(text) = fs_err::read_to_string("/proc/self/statm") else { return 0 };
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::label_enum;

    label_enum! {
        /// A side.
        enum Side {
            /// The left one.
            Left = "left",
            /// The right one.
            Right = "right",
        }
    }

    #[test]
    fn a_label_is_exported_with_its_word_once_it_is_used() {
        let mut registry = Registry::new();
        let sides: ByLabel<Side, Counter> = registry.by_label("turns", "Turns", "side");
        sides.with(Side::Left).inc();
        sides.with(Side::Left).inc();
        let text = registry.render();
        assert!(text.contains("likewise_turns_total{side=\"left\"} 2\n"), "{text}");
        assert!(!text.contains(Side::Right.as_str()), "{text}");
        let description = &registry.descriptions()[0];
        assert_eq!((description.name.as_str(), description.kind), ("likewise_turns_total", "counter"));
        assert_eq!(description.labels, [("side", Side::WORDS)]);
    }
}
