//! OpenTelemetry's metrics data model: names with dots, cumulative sums.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use super::{
    Numbers,
    families::{Family, Kind, OTHER, Series, Unit, Value},
};

/// `ExportMetricsServiceRequest.resource_metrics`.
const RESOURCE_METRICS: u32 = 1;

impl Numbers {
    /// Appends the metrics at `now_ns` (wall clock, ns since the epoch) to a protobuf request, as a repeated field of
    /// `ExportMetricsServiceRequest`.
    pub fn otlp_protobuf(&self, resource: &Resource, now_ns: i64, out: &mut Vec<u8>) {
        prost::encoding::message::encode(RESOURCE_METRICS, &self.resource_metrics(resource, now_ns), out);
    }

    /// The metrics as a line of JSON (`ResourceMetrics`).
    pub fn otlp_json(&self, resource: &Resource, now_ns: i64, out: &mut Vec<u8>) {
        // Writing a value of ours to a vector does not fail.
        let _ = serde_json::to_writer(&mut *out, &self.resource_metrics(resource, now_ns));
        out.push(b'\n');
    }

    fn resource_metrics(&self, resource: &Resource, now_ns: i64) -> ResourceMetrics {
        let mut resource = resource.clone();
        resource.attributes.push(attribute("sockstate.hook", self.hook));
        resource.attributes.push(attribute("sockstate.tier", self.tier));
        let (name, version) = ("sockstate".into(), env!("CARGO_PKG_VERSION").into());
        let times = [self.counts.since_ns, now_ns].map(|ns| u64::try_from(ns).unwrap_or(0));
        let metrics = self.families().iter().map(|family| metric(family, times)).collect();
        ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope { name, version, ..InstrumentationScope::default() }),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }
    }
}

fn metric(family: &Family<'_>, times: [u64; 2]) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match family.kind {
        Kind::Counter => {
            let data_points = family.series.iter().map(|series| number(series, times)).collect();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
        }
        // A gauge has no start time.
        Kind::Gauge => {
            let data_points = family.series.iter().map(|series| number(series, [0, times[1]])).collect();
            Data::Gauge(Gauge { data_points })
        }
        Kind::Histogram => {
            let data_points = family.series.iter().filter_map(|series| histogram(series, times)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }
    };
    Metric {
        name: format!("sockstate.{}", family.name),
        description: family.help.into(),
        // UCUM: the unit of counts is 1.
        unit: family
            .unit
            .map_or("1", |unit| match unit {
                Unit::Seconds => "s",
                Unit::Bytes => "By",
            })
            .into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(series: &Series<'_>, [start_time_unix_nano, time_unix_nano]: [u64; 2]) -> NumberDataPoint {
    let value = match series.value {
        Value::Integer(value) => number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
        Value::Real(value) => number_data_point::Value::AsDouble(value),
        Value::Histogram(ref found) => number_data_point::Value::AsDouble(found.sum),
    };
    NumberDataPoint {
        attributes: attributes(series),
        start_time_unix_nano,
        time_unix_nano,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(
    series: &Series<'_>,
    [start_time_unix_nano, time_unix_nano]: [u64; 2],
) -> Option<HistogramDataPoint> {
    let Value::Histogram(found) = &series.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano,
        time_unix_nano,
        count: found.counts.iter().sum(),
        sum: Some(found.sum),
        bucket_counts: found.counts.to_vec(),
        // The last bucket has no upper bound.
        explicit_bounds: found.ends.iter().copied().filter(|end| end.is_finite()).collect(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(series: &Series<'_>) -> Vec<KeyValue> {
    let known = series.labels.iter().filter(|(_, value)| !value.is_empty());
    known.map(|(label, value)| labelled(label, value)).collect()
}

/// The attribute for a label, by the semantic conventions where they have one.
fn labelled(label: &str, value: &str) -> KeyValue {
    let key = match label {
        "container" => "container.name",
        "namespace" => "k8s.namespace.name",
        "pod" => "k8s.pod.name",
        OTHER => {
            let value = AnyValue { value: Some(any_value::Value::BoolValue(true)) };
            return KeyValue {
                key: "otel.metric.overflow".into(),
                value: Some(value),
                ..KeyValue::default()
            };
        }
        label => label,
    };
    attribute(key, value)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}
