//! What a request holds, and what its answer means, for the collectors that take records over HTTP.

use std::{collections::BTreeMap, io::Write};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use serde_json::{Value, json};

use crate::sinks::delivery::{Batch, DeliveryError};

/// How records are put into one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// A line each: ClickHouse (`FORMAT JSONEachRow`), Vector, VictoriaLogs (`/insert/jsonline`), Fluent Bit.
    Ndjson,
    /// Elasticsearch's and OpenSearch's `_bulk`: a `create` in front of each.
    Elasticsearch,
    /// Loki's `/loki/api/v1/push`: one stream with these labels.
    Loki(BTreeMap<String, String>),
    /// Splunk's HTTP event collector: an `event` each.
    Splunk,
    /// OTLP's `/v1/logs`: what surrounds the records.
    OtlpJson(Envelope),
    /// The same in protobuf.
    OtlpProtobuf(Envelope),
    /// OTLP's `/v1/metrics`: each record is a whole `ResourceMetrics`.
    OtlpMetricsJson,
    /// The same in protobuf, as a field of a request.
    OtlpMetricsProtobuf,
}

/// What stands before and behind the records of one OTLP request; only the format knows what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// JSON: everything before the first record. Protobuf: the resource, as a field of `ResourceLogs`.
    pub before: Vec<u8>,
    /// JSON: everything behind the last record. Protobuf: the scope, as a field of `ScopeLogs`.
    pub behind: Vec<u8>,
}

impl Template {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Ndjson | Self::Elasticsearch => "application/x-ndjson",
            Self::Loki(_) | Self::Splunk | Self::OtlpJson(_) | Self::OtlpMetricsJson => "application/json",
            Self::OtlpProtobuf(_) | Self::OtlpMetricsProtobuf => "application/x-protobuf",
        }
    }

    /// A parameter of the URL that keeps answers short: of each document only whether it was taken, and why not.
    pub(super) fn query(&self) -> Option<(&'static str, &'static str)> {
        matches!(self, Self::Elasticsearch).then_some(("filter_path", "errors,items.*.status,items.*.error"))
    }

    pub(super) fn body(&self, batch: &Batch) -> Vec<u8> {
        let records = batch.records().map(|(bytes, frame)| (bytes.trim_ascii_end(), frame));
        let mut body = Vec::with_capacity(batch.bytes.len() + 64 * batch.len());
        match self {
            Self::Ndjson | Self::OtlpMetricsProtobuf => body.extend_from_slice(&batch.bytes),
            Self::OtlpMetricsJson => {
                body.extend_from_slice(b"{\"resourceMetrics\":[");
                separated(records, &mut body, |(bytes, _), body| body.extend_from_slice(bytes));
                body.extend_from_slice(b"]}");
            }
            Self::Elasticsearch => {
                for (bytes, _) in records {
                    body.extend_from_slice(b"{\"create\":{}}\n");
                    body.extend_from_slice(bytes);
                    body.push(b'\n');
                }
            }
            Self::Splunk => {
                for (bytes, frame) in records {
                    // Writing to a vector does not fail.
                    let _ = write!(
                        body,
                        "{{\"time\":{:.6},\"source\":\"sockstate\",\"event\":",
                        frame.time_ns as f64 / 1e9
                    );
                    body.extend_from_slice(bytes);
                    body.extend_from_slice(b"}\n");
                }
            }
            Self::Loki(labels) => {
                let _ = write!(body, "{{\"streams\":[{{\"stream\":{},\"values\":[", json!(labels));
                separated(records, &mut body, |(bytes, frame), body| {
                    let _ = write!(body, "[\"{}\",{}]", frame.time_ns, json!(String::from_utf8_lossy(bytes)));
                });
                body.extend_from_slice(b"]}]}");
            }
            Self::OtlpJson(envelope) => {
                body.extend_from_slice(&envelope.before);
                separated(records, &mut body, |(bytes, _), body| body.extend_from_slice(bytes));
                body.extend_from_slice(&envelope.behind);
            }
            Self::OtlpProtobuf(envelope) => {
                // ExportLogsServiceRequest.resource_logs = 1, ResourceLogs.scope_logs = 2; each record is a field already.
                let scope = envelope.behind.len() + batch.bytes.len();
                let logs = envelope.before.len() + 1 + varint_len(scope) + scope;
                body.push(1 << 3 | 2);
                varint(logs, &mut body);
                body.extend_from_slice(&envelope.before);
                body.push(2 << 3 | 2);
                varint(scope, &mut body);
                body.extend_from_slice(&envelope.behind);
                body.extend_from_slice(&batch.bytes);
            }
        }
        body
    }

    /// What a success means: some collectors refuse records in it. Takes away what was delivered.
    /// Where an answer of these breaks off, success is known, and not of which records.
    pub(super) fn answered(
        &self,
        batch: &mut Batch,
        answer: &[u8],
        is_whole: bool,
        name: &str,
    ) -> Result<(), DeliveryError> {
        let partly = match self {
            Self::Ndjson | Self::Loki(_) | Self::Splunk => None,
            Self::Elasticsearch => return bulk(batch, answer, is_whole, name),
            _ if !is_whole => {
                return Err(DeliveryError::InDoubt { message: format!("{name}: the answer breaks off") });
            }
            Self::OtlpJson(_) => rejected_json(answer, "rejectedLogRecords"),
            Self::OtlpMetricsJson => rejected_json(answer, "rejectedDataPoints"),
            Self::OtlpProtobuf(_) | Self::OtlpMetricsProtobuf => rejected_protobuf(answer),
        };
        let (rejected, message) = partly.unwrap_or_default();
        // Which ones nobody says.
        batch.drop_first(batch.len().saturating_sub(rejected));
        if rejected == 0 {
            Ok(())
        } else {
            Err(DeliveryError::Refused { message: format!("{name}: {message}") })
        }
    }
}

/// How many records an OTLP collector has not taken, and why (`ExportLogsPartialSuccess`); of metrics, numbers: many to a record.
fn rejected_json(answer: &[u8], key: &str) -> Option<(usize, String)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partly = &answer["partialSuccess"];
    // 64-bit numbers are texts in protobuf's JSON.
    let count = &partly[key];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((count as usize, partly["errorMessage"].as_str().unwrap_or_default().to_owned()))
}

/// The same; `ExportMetricsPartialSuccess` has the same bytes.
fn rejected_protobuf(answer: &[u8]) -> Option<(usize, String)> {
    let partly = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
    Some((usize::try_from(partly.rejected_log_records).ok()?, partly.error_message))
}

/// `_bulk` says 200 even if it has taken nothing: each item has a status.
fn bulk(batch: &mut Batch, answer: &[u8], is_whole: bool, name: &str) -> Result<(), DeliveryError> {
    let doubtful =
        |what: &str| Err(DeliveryError::InDoubt { message: format!("{name}: the answer of _bulk {what}") });
    let answer: Value = match serde_json::from_slice(answer) {
        Ok(answer) => answer,
        Err(_) if reports_no_error(answer) => json!({"errors": false}),
        Err(error) if !is_whole || error.is_eof() => return doubtful("breaks off"),
        Err(error) => return Err(DeliveryError::retry(format!("{name}: not the answer of _bulk: {error}"))),
    };
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    if answer["errors"] == false || answer["errors"] != true && items.is_empty() {
        batch.drop_first(batch.len());
        return Ok(());
    }
    // Each item has one key: what was asked for, which a pipeline may have changed.
    let results: Vec<&Value> = items.iter().filter_map(|item| item.as_object()?.values().next()).collect();
    let statuses: Option<Vec<u64>> = results.iter().map(|result| result["status"].as_u64()).collect();
    let Some(statuses) = statuses.filter(|statuses| statuses.len() == batch.len()) else {
        return doubtful("does not say which documents were taken");
    };
    // 409: it is there already.
    let is_done = |at: usize| statuses[at] < 300 || statuses[at] == 409;
    let passes = |at: usize| statuses[at] == 429 || statuses[at] >= 500;
    let reason = (0..batch.len()).find(|at| !is_done(*at)).map(|at| results[at]["error"].to_string());
    let refused = (0..batch.len()).filter(|at| !is_done(*at) && !passes(*at)).count();
    let later = (0..batch.len()).filter(|at| passes(*at)).count();
    let message = format!("{name}: refused by _bulk: {}", reason.unwrap_or_default());
    batch.retain(|at| !is_done(at));
    if later > 0 {
        // The refused ones stay with those for later, and are asked for once more.
        return Err(DeliveryError::retry(message));
    }
    if refused > 0 { Err(DeliveryError::Refused { message }) } else { Ok(()) }
}

/// Whether the beginning of an answer says that all documents were taken: `errors` stands before `items`.
fn reports_no_error(answer: &[u8]) -> bool {
    const HEAD: usize = 1024;
    let head = String::from_utf8_lossy(&answer[..answer.len().min(HEAD)]);
    let head = head.split("\"items\"").next().unwrap_or_default();
    let value = head.split_once("\"errors\"").and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
    value.is_some_and(|value| value.trim_start().starts_with("false"))
}

fn separated<T>(items: impl Iterator<Item = T>, body: &mut Vec<u8>, mut write: impl FnMut(T, &mut Vec<u8>)) {
    for (at, item) in items.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        write(item, body);
    }
}

fn varint(mut value: usize, body: &mut Vec<u8>) {
    while value >= 0x80 {
        body.push(value as u8 | 0x80);
        value >>= 7;
    }
    body.push(value as u8);
}

fn varint_len(value: usize) -> usize {
    let mut text = Vec::new();
    varint(value, &mut text);
    text.len()
}
