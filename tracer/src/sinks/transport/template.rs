//! The bodies of requests and the meaning of answers, for the collectors that take records over HTTP.

use std::{collections::BTreeMap, io::Write};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use serde_json::{Value, json};

use crate::sinks::delivery::{Batch, DeliveryError};

/// How records are put into one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// One line per record: ClickHouse (`FORMAT JSONEachRow`), Vector, VictoriaLogs (`/insert/jsonline`), Fluent Bit.
    Ndjson,
    /// Elasticsearch's and OpenSearch's `_bulk`: a `create` before each record.
    Elasticsearch,
    /// Loki's `/loki/api/v1/push`: one stream with these labels.
    Loki(BTreeMap<String, String>),
    /// Splunk's HTTP event collector: one `event` per record.
    Splunk,
    /// OTLP's `/v1/logs` in JSON, with what surrounds the records.
    OtlpJson(Envelope),
    /// OTLP's `/v1/logs` in protobuf, with what surrounds the records.
    OtlpProtobuf(Envelope),
    /// OTLP's `/v1/metrics` in JSON: each record is a `ResourceMetrics`.
    OtlpMetricsJson,
    /// OTLP's `/v1/metrics` in protobuf: each record is a `ResourceMetrics` as a field of a request.
    OtlpMetricsProtobuf,
}

/// The bytes before and after the records of an OTLP request; the format makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// JSON: everything before the first record. Protobuf: the resource, as a field of `ResourceLogs`.
    pub before: Vec<u8>,
    /// JSON: everything after the last record. Protobuf: the scope, as a field of `ScopeLogs`.
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

    /// A parameter of the URL that keeps answers short: they only say which documents were accepted, and why others
    /// were not.
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
                // ExportLogsServiceRequest.resource_logs = 1, ResourceLogs.scope_logs = 2; each record is a field
                // already.
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

    /// Evaluates an answer of success, in which some collectors refuse single records, and removes the delivered
    /// records from `batch`. If the answer of such a collector breaks off, it is not known which records it has
    /// accepted.
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
        // The answer does not say which records are refused: the last ones are counted as lost.
        batch.drop_first(batch.len().saturating_sub(rejected));
        if rejected == 0 {
            Ok(())
        } else {
            Err(DeliveryError::Refused { message: format!("{name}: {message}") })
        }
    }
}

/// How many records an OTLP collector has refused, and why (`ExportLogsPartialSuccess`). For metrics the number is
/// that of data points, of which a record has many.
fn rejected_json(answer: &[u8], key: &str) -> Option<(usize, String)> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partly = &answer["partialSuccess"];
    // In protobuf's JSON, 64-bit numbers are strings.
    let count = &partly[key];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((count as usize, partly["errorMessage"].as_str().unwrap_or_default().to_owned()))
}

/// The same for protobuf; `ExportMetricsPartialSuccess` has the same encoding.
fn rejected_protobuf(answer: &[u8]) -> Option<(usize, String)> {
    let partly = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
    Some((usize::try_from(partly.rejected_log_records).ok()?, partly.error_message))
}

/// `_bulk` answers with status 200 even if it has accepted no document: each item has its own status.
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
    // Each item has one key, the operation; an ingest pipeline may have changed it.
    let results: Vec<&Value> = items.iter().filter_map(|item| item.as_object()?.values().next()).collect();
    let statuses: Option<Vec<u64>> = results.iter().map(|result| result["status"].as_u64()).collect();
    let Some(statuses) = statuses.filter(|statuses| statuses.len() == batch.len()) else {
        return doubtful("does not say which documents were taken");
    };
    // 409: the document exists already.
    let is_done = |at: usize| statuses[at] < 300 || statuses[at] == 409;
    let passes = |at: usize| statuses[at] == 429 || statuses[at] >= 500;
    let reason = (0..batch.len()).find(|at| !is_done(*at)).map(|at| results[at]["error"].to_string());
    let refused = (0..batch.len()).filter(|at| !is_done(*at) && !passes(*at)).count();
    let later = (0..batch.len()).filter(|at| passes(*at)).count();
    let message = format!("{name}: refused by _bulk: {}", reason.unwrap_or_default());
    batch.retain(|at| !is_done(at));
    if later > 0 {
        // The refused documents stay in the batch with those that may succeed later, and are sent once more.
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
