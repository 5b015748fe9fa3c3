//! The keys of requests by HTTP, for every sink that makes some.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::{
    sinks::{
        config::BuildContext,
        kind::Table,
        problem::ConfigError,
        transport::{AUTHORIZATION, HttpSettings, Template, TlsFiles, TlsSettings},
    },
    values::parse_duration,
};

/// The table of headers.
pub(crate) const HEADERS: Table =
    Table { name: "headers", about: "Headers of each request", example: "X-Scope-OrgID = \"tenant\"" };

const AUTHORIZATION_FILE: &str = "authorization-file";

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionName {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
}

/// Where requests go, and how.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct RequestArgs {
    /// The collector: http://host:port/path or https://host/path; for otlp, /v1/logs if there is no path, and
    /// /v1/metrics for otlp-metrics.
    #[arg(long, value_name = "URL", required = true)]
    url: Option<String>,
    /// A file with the value of the header Authorization, read at the start.
    #[arg(long, value_name = "FILE")]
    authorization_file: Option<PathBuf>,
    /// How requests are compressed.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    compression: CompressionName,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsSettings,
}

impl RequestArgs {
    /// Requests that look like `template`.
    pub(crate) fn settings(
        &self,
        context: &BuildContext<'_>,
        template: Template,
    ) -> Result<HttpSettings, ConfigError> {
        let mut headers = context.table(HEADERS.name);
        if let Some(secret) = context.secrets.get(AUTHORIZATION_FILE) {
            headers.insert(AUTHORIZATION.to_owned(), secret.trim().to_owned());
        }
        Ok(HttpSettings {
            url: self.url.clone().ok_or(ConfigError::Incomplete)?,
            template,
            headers,
            timeout: self.timeout,
            gzip: self.compression == CompressionName::Gzip,
            tls: self.tls.clone(),
        })
    }

    pub(crate) fn secrets(&self) -> Vec<(&'static str, &Path)> {
        self.authorization_file.as_deref().map(|path| (AUTHORIZATION_FILE, path)).into_iter().collect()
    }

    pub(crate) fn tls(&self) -> &TlsFiles {
        &self.tls.files
    }
}
