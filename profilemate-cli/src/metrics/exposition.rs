//! What `/metrics` answers: Prometheus's text, `OpenMetrics`, or Prometheus's protobuf with native histograms.

use std::fmt::Write as _;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as model;
use prometheus_client::encoding::{prometheus_protobuf, text};
use prost::Message as _;

use super::registry::Registry;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, 0.0.4: no exemplars.
    Text,
    /// `OpenMetrics` 1.0.0, with exemplars.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily`, each with its length before it: exemplars and native histograms.
    Protobuf,
}

/// The protobuf messages' name in `Accept`.
const FAMILY: &str = "io.prometheus.client.metricfamily";

impl Format {
    /// The best one that `accept` asks for, as Prometheus sends it. Without a known one: text.
    pub fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for entry in accept.split(',').take(32) {
            let mut parts = entry
                .split(';')
                .map(|part| part.trim().to_ascii_lowercase());
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut family, mut version) = (1.0, false, true);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("proto", value)) => family = value == FAMILY,
                    Some(("encoding", value)) => family &= value == "delimited",
                    Some(("version", value)) => {
                        version = matches!(value, "1.0.0" | "0.0.1" | "0.0.4");
                    }
                    _ => {}
                }
            }
            let format = match kind.as_str() {
                "application/vnd.google.protobuf" if family => Self::Protobuf,
                "application/openmetrics-text" if version => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, format);
            }
        }
        best.1
    }

    /// The `Content-Type` of it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// Why the numbers could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A metric has no such form.
    #[error("a metric cannot be written")]
    Format(#[from] std::fmt::Error),
    /// A message could not be encoded.
    #[error("a metric cannot be encoded")]
    Encode(#[from] prost::EncodeError),
}

/// Everything in `registry`.
pub fn expose(registry: &Registry, format: Format) -> Result<Vec<u8>, Error> {
    match format {
        Format::Text => Ok(plain(&prometheus_protobuf::encode(&registry.text)?).into_bytes()),
        Format::OpenMetrics => {
            let mut out = String::new();
            text::encode(&mut out, &registry.text)?;
            Ok(out.into_bytes())
        }
        Format::Protobuf => {
            let mut out = Vec::new();
            for family in families(registry)? {
                family.encode_length_delimited(&mut out)?;
            }
            Ok(out)
        }
    }
}

/// The families with native buckets, and with the exemplars of the classic ones.
fn families(registry: &Registry) -> Result<Vec<model::MetricFamily>, Error> {
    let mut native = prometheus_protobuf::encode(&registry.native)?;
    let classic = prometheus_protobuf::encode(&registry.text)?;
    for family in &mut native {
        let twin = classic.iter().find(|twin| twin.name == family.name);
        let Some(twin) = twin.filter(|_| family.r#type() == model::MetricType::Histogram) else {
            continue;
        };
        for metric in &mut family.metric {
            let same = twin.metric.iter().find(|same| same.label == metric.label);
            let (Some(own), Some(same)) = (
                &mut metric.histogram,
                same.and_then(|same| same.histogram.as_ref()),
            ) else {
                continue;
            };
            for (bucket, with) in own.bucket.iter_mut().zip(&same.bucket) {
                bucket.exemplar.clone_from(&with.exemplar);
            }
            own.exemplars = same
                .bucket
                .iter()
                .filter_map(|bucket| bucket.exemplar.clone())
                .collect();
        }
    }
    native.retain(|family| !family.metric.is_empty());
    Ok(native)
}

/// Prometheus's text format.
fn plain(families: &[model::MetricFamily]) -> String {
    let mut out = String::new();
    for family in families.iter().filter(|family| !family.metric.is_empty()) {
        let name = &family.name;
        let kind = match family.r#type() {
            model::MetricType::Counter => "counter",
            model::MetricType::Histogram => "histogram",
            _ => "gauge",
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "# HELP {name} {}", escape(&family.help, false));
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for metric in &family.metric {
            sample(&mut out, name, metric);
        }
    }
    out
}

fn sample(out: &mut String, name: &str, metric: &model::Metric) {
    let own = labels(&metric.label);
    if let Some(histogram) = &metric.histogram {
        let mut ends = false;
        for bucket in &histogram.bucket {
            ends |= bucket.upper_bound.is_infinite();
            line(
                out,
                name,
                "_bucket",
                &own,
                Some(bucket.upper_bound),
                bucket.cumulative_count as f64,
            );
        }
        let count = histogram.sample_count as f64;
        if !ends {
            line(out, name, "_bucket", &own, Some(f64::INFINITY), count);
        }
        line(out, name, "_sum", &own, None, histogram.sample_sum);
        line(out, name, "_count", &own, None, count);
        return;
    }
    let counter = metric.counter.as_ref().map(|counter| counter.value);
    let gauge = metric.gauge.as_ref().map(|gauge| gauge.value);
    if let Some(value) = counter.or(gauge) {
        line(out, name, "", &own, None, value);
    }
}

fn labels(pairs: &[model::LabelPair]) -> String {
    let texts: Vec<String> = pairs
        .iter()
        .map(|pair| format!("{}=\"{}\"", pair.name, escape(&pair.value, true)))
        .collect();
    texts.join(",")
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, bound: Option<f64>, value: f64) {
    out.push_str(name);
    out.push_str(suffix);
    let bound = bound.map(|bound| format!("le=\"{}\"", number(bound)));
    let all: Vec<&str> = [Some(labels), bound.as_deref()]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    if !all.is_empty() {
        let _ = write!(out, "{{{}}}", all.join(","));
    }
    let _ = writeln!(out, " {}", number(value));
}

/// As Prometheus writes numbers that are none.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

fn escape(text: &str, quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted {
        text.replace('"', "\\\"")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::declare::Id;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                      application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(Format::accepted(native), Format::Protobuf);
        for other in [
            "",
            "*/*",
            "text/html",
            "application/vnd.google.protobuf",
            "q=;;=,,",
        ] {
            assert_eq!(Format::accepted(other), Format::Text, "{other}");
        }
    }

    #[test]
    fn what_was_not_told_has_no_series_in_any_format() {
        let registry = Registry::default();
        for format in [Format::Text, Format::Protobuf] {
            assert!(expose(&registry, format).unwrap().is_empty(), "{format:?}");
        }
        let text = String::from_utf8(expose(&registry, Format::OpenMetrics).unwrap()).unwrap();
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }

    #[test]
    fn a_value_with_quotes_and_newlines_stays_one_line() {
        let registry = Registry::default();
        registry.add(Id::Steps, &["a\"b\\c\nd", "0"], 2.0);
        let text = String::from_utf8(expose(&registry, Format::Text).unwrap()).unwrap();
        let line = "profilemate_steps_total{server=\"a\\\"b\\\\c\\nd\",engine=\"0\"} 2";
        assert!(text.lines().any(|own| own == line), "{text}");
    }

    #[test]
    fn protobuf_has_native_buckets_and_exemplars_and_all_forms_agree() {
        let registry = Registry::default();
        for value in 1..=1_000 {
            let exemplar = vec![("step", value.to_string())];
            registry.observe(
                Id::StepDuration,
                &["a", "0"],
                f64::from(value) / 1e3,
                Some(exemplar),
            );
        }
        let families = families(&registry).unwrap();
        let histogram = families[0].metric[0].histogram.as_ref().unwrap();
        assert_eq!((histogram.sample_count, histogram.schema), (1_000, 3));
        let mut total = 0;
        let mut count = 0;
        for delta in &histogram.positive_delta {
            count += delta;
            total += count;
        }
        assert_eq!(total, 1_000);
        assert!(!histogram.exemplars.is_empty());
        assert!(
            histogram
                .bucket
                .iter()
                .any(|bucket| bucket.exemplar.is_some())
        );
        let text = String::from_utf8(expose(&registry, Format::Text).unwrap()).unwrap();
        let name = "profilemate_step_duration_seconds";
        assert!(
            text.contains(&format!(
                "{name}_bucket{{server=\"a\",engine=\"0\",le=\"0.1\"}} 100\n"
            )),
            "{text}"
        );
        assert!(text.contains(&format!("{name}_count{{server=\"a\",engine=\"0\"}} 1000\n")));
        let open = String::from_utf8(expose(&registry, Format::OpenMetrics).unwrap()).unwrap();
        assert!(
            open.contains("# {step=\"") && open.ends_with("# EOF\n"),
            "{open}"
        );
    }
}
