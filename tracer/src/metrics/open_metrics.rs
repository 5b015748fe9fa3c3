//! The OpenMetrics text format, which Prometheus reads.

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet,
        text::encode,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{self, Registry},
};

use super::{
    Numbers,
    families::{Family, Kind, Series, Unit, Value},
};

impl Numbers {
    /// In the OpenMetrics text format, version 1.0.0.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut registry = Registry::with_prefix("sockstate");
        let about = vec![("version", env!("CARGO_PKG_VERSION")), ("hook", self.hook), ("tier", self.tier)];
        registry.register(
            "build",
            "What runs here, and what it sees transitions and mini-sockets by",
            Info::new(about),
        );
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.families().iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family<'_> {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let unit = self.unit.map(|unit| match unit {
            Unit::Seconds => registry::Unit::Seconds,
            Unit::Bytes => registry::Unit::Bytes,
        });
        let name = self.name.replace('.', "_");
        let mut family = encoder.encode_descriptor(&name, self.help, unit.as_ref(), kind)?;
        if let [Series { labels, value }] = &self.series[..]
            && labels.is_empty()
        {
            return self.value(value, family);
        }
        self.series.iter().try_for_each(|Series { labels, value }| {
            self.value(value, family.encode_family(&Labels(labels))?)
        })
    }

    fn value(&self, value: &Value<'_>, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        match (self.kind, value) {
            (Kind::Gauge, Value::Integer(value)) => {
                ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(encoder)
            }
            (Kind::Gauge, Value::Real(value)) => ConstGauge::new(*value).encode(encoder),
            (_, Value::Integer(value)) => ConstCounter::new(*value).encode(encoder),
            (_, Value::Real(value)) => ConstCounter::new(*value).encode(encoder),
            (_, Value::Histogram(found)) => {
                let buckets: Vec<(f64, u64)> =
                    found.ends.iter().copied().zip(found.counts.iter().copied()).collect();
                let count = found.counts.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(found.sum, count, &buckets, None)
            }
        }
    }
}

#[derive(Debug)]
struct Labels<'a>(&'a [(&'static str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        self.0.encode(encoder)
    }
}
