//! `docs/reference/metrics.md`, from the registry.

use std::collections::HashMap;

use likewise::metrics::MetricDescription;

use super::{cell, compare};
use crate::docs::read;
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

/// The parts of a text that look like metrics, each with what follows it.
fn selectors(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("likewise_").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|c: char| c != '_' && !c.is_ascii_lowercase() && !c.is_ascii_digit());
        rest.split_at(end.unwrap_or(rest.len()))
    })
}

/// What is wrong with the labels in a selector such as `{tier="disk"}`.
fn label_fault(metric: &MetricDescription, selector: &str) -> Option<String> {
    let matchers = selector.strip_prefix('{')?.split_once('}')?.0;
    matchers.split(',').find_map(|matcher| {
        let (label, value) = matcher.split_once('=').unwrap();
        let Some((_, known)) = metric.labels.iter().find(|(known, _)| *known == label) else {
            return Some(format!("{} has no label `{label}`", metric.name));
        };
        let values = value
            .trim_start_matches('~')
            .trim_matches('"')
            .split(['|', '\\'])
            .filter(|value| !value.is_empty());
        let is_known = |value: &str| known.is_empty() || known.contains(&value);
        let unknown = values.into_iter().find(|value| !is_known(value))?;
        Some(format!("{}: `{label}` is never `{unknown}`", metric.name))
    })
}

#[test]
fn alerts_and_queries_ask_for_metrics_that_exist() {
    let metrics = likewise::app::metric_descriptions();
    let (mut count, mut faults) = (0, Vec::new());
    for page in
        ["examples/alerts.yml", "docs/operations.md", "docs/guides/search.md", "docs/reference/headers.md"]
    {
        for (name, selector) in selectors(&read(page)) {
            count += 1;
            let suffixes = ["_bucket", "_sum", "_count"];
            let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let found = metrics.iter().find(|metric| {
                metric.name == name
                    || metric.kind == "histogram" && stem.is_some_and(|stem| metric.name == stem)
            });
            match found {
                None => faults.push(format!("{page}: no metric `{name}`")),
                Some(metric) => faults.extend(label_fault(metric, selector)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 20, "{count}");
    let tier = metrics.iter().find(|metric| metric.name == "likewise_tier_is_enabled").unwrap();
    assert!(
        label_fault(tier, "{tier=\"tape\"}").is_some()
            && label_fault(tier, "{tier=~\"disk|memory\"}").is_none()
    );
}
