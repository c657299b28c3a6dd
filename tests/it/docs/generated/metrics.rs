//! `docs/reference/metrics.md`, from the registry.

use std::collections::HashMap;

use likewise::metrics::MetricDescription;

use super::{cell, compare};
use crate::program::Server;

const HEAD: &str = "# Metrics

`GET /metrics` exports these in OpenMetrics format. A metric with labels appears once it has a value. Histograms have the suffixes `_bucket`,
`_sum` and `_count`. [Operations](../operations.md#alerts) says what to alert on.

| metric | type | labels | what it counts |
|---|---|---|---|
";

fn page() -> String {
    let rows = likewise::app::metric_descriptions();
    assert!(rows.len() > 30, "{}", rows.len());
    rows.iter().fold(HEAD.to_owned(), |page, metric| page + &row(metric))
}

fn row(metric: &MetricDescription) -> String {
    let labels = metric.labels.iter().map(|(label, values)| {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        if values.is_empty() { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
    });
    let labels = labels.collect::<Vec<_>>().join("; ");
    format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind, cell(&labels), cell(&metric.help))
}

#[test]
fn the_metrics_are_those_of_the_registry() {
    compare("metrics.md", &page());
}

#[tokio::test]
async fn a_server_exports_what_is_described() {
    let server = Server::start();
    server.embed(&["hola"]).await;
    let exported = server.get("/metrics").await;
    let described = likewise::app::metric_descriptions();
    let described: HashMap<_, _> = described.iter().map(|metric| (metric.name.as_str(), metric)).collect();
    let mut samples = 0;
    let lines = exported.body.as_str().unwrap().lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let metric = described.get(name).or_else(|| described.get(stem?));
        let metric = metric.unwrap_or_else(|| panic!("{name} is not described"));
        let is_labelled = line.contains(&format!("{name}{{")) && !labels.starts_with("le=");
        assert_eq!(is_labelled, !metric.labels.is_empty(), "{line}");
        for (label, values) in &metric.labels {
            let value = labels.split_once(&format!("{label}=\"")).unwrap().1.split('"').next().unwrap();
            assert!(values.is_empty() || values.contains(&value), "{line}");
        }
        samples += 1;
    }
    assert!(samples > 30, "{samples}");
}
