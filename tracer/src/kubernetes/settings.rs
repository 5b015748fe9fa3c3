//! The section `[kubernetes]` of the configuration.

use std::{env, path::PathBuf};

use clap::{Args, builder::NonEmptyStringValueParser};
use thiserror::Error;

use crate::sinks::{Authority, TlsFiles, TlsSettings};

/// Where the kubelet puts the credentials of a service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// The longest name of a node (RFC 1123).
const MOST_NAME: usize = 253;

/// The keys.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct KubernetesArgs {
    /// The labels of pods that records have (`pod.labels`). A * at the end stands for any rest: app.kubernetes.io/*.
    #[arg(id = "pod_labels", long = "labels", value_name = "LABEL", value_parser = NonEmptyStringValueParser::new(), value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Records name the pod or the service at the remote address (`peer`). sockstate then watches all pods and all services of
    /// the cluster.
    #[arg(long)]
    pub peers: bool,
    /// The name of this node in the cluster [default: the environment variable NODE_NAME].
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// The API server [default: the one that Kubernetes names in the environment of a pod].
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The token of the service account; it is read again for each request.
    #[arg(long, value_name = "FILE", default_value = TOKEN)]
    pub token_file: PathBuf,
    /// Certificate authorities of the API server (PEM).
    #[arg(id = "api_ca", long = "tls-ca", value_name = "FILE", default_value = AUTHORITY)]
    pub ca: PathBuf,
}

impl Default for KubernetesArgs {
    /// The defaults of the keys.
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            peers: false,
            node: None,
            server: None,
            token_file: TOKEN.into(),
            ca: AUTHORITY.into(),
        }
    }
}

/// Why the keys cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KubernetesError {
    #[error(
        "the name of this node is not known: set 'node', or pass NODE_NAME to the container (spec.nodeName)"
    )]
    NoNode,
    #[error("'{0}' cannot be the name of a node")]
    Node(String),
    #[error("there is no API server: this is no container of Kubernetes; set 'server'")]
    NoServer,
    #[error("'{0}' is not the URL of an API server: write https://host:port")]
    Server(String),
}

impl KubernetesError {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoNode | Self::Node(_) => "node",
            Self::NoServer | Self::Server(_) => "server",
        }
    }
}

/// What the thread needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    pub(super) node: String,
    pub(super) server: Authority,
    /// Without TLS, as for `kubectl proxy`, no token is sent.
    pub(super) is_encrypted: bool,
    pub(super) tls: TlsSettings,
    pub(super) token_file: PathBuf,
    pub(super) labels: Vec<String>,
    /// Whether the pods and the services of the cluster are watched, too.
    pub(super) peers: bool,
}

/// The name of the node, in a pod whose manifest passes it on.
#[must_use]
pub fn node_name() -> Option<String> {
    variable("NODE_NAME")
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl KubernetesArgs {
    /// The keys, with what the environment of this process says.
    #[must_use]
    pub fn resolved(&self) -> Self {
        Self {
            node: self.node.clone().or_else(node_name),
            server: self.server.clone().or_else(server_of_environment),
            ..self.clone()
        }
    }

    /// The [resolved](Self::resolved) keys, checked.
    ///
    /// # Errors
    /// A key is missing, or has a wrong value.
    pub fn settings(&self) -> Result<KubernetesSettings, KubernetesError> {
        let Self { labels, peers, node, server, token_file, ca } = self.resolved();
        let node = node.ok_or(KubernetesError::NoNode)?;
        // The name becomes a part of a URL.
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if node.is_empty() || node.len() > MOST_NAME || !node.bytes().all(is_name) {
            return Err(KubernetesError::Node(node));
        }
        let url = server.ok_or(KubernetesError::NoServer)?;
        let (server, is_encrypted) = split(&url).ok_or(KubernetesError::Server(url))?;
        let files = TlsFiles { ca: Some(ca), ..TlsFiles::default() };
        Ok(KubernetesSettings {
            node,
            server,
            is_encrypted,
            tls: TlsSettings { files, name: None },
            token_file,
            labels,
            peers,
        })
    }
}

/// The API server, as the kubelet passes it to each container.
fn server_of_environment() -> Option<String> {
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

/// Host and port of a URL without a path, and whether it has TLS.
fn split(url: &str) -> Option<(Authority, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let (port, is_encrypted) = match scheme {
        "https" => (443, true),
        "http" => (80, false),
        _ => return None,
    };
    let authority = Authority::parse(rest.strip_suffix('/').unwrap_or(rest), Some(port))?;
    Some((authority, is_encrypted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_a_host_and_a_port() {
        let settings = |node: &str, server: &str| {
            let (node, server) = (Some(node.to_owned()), Some(server.to_owned()));
            KubernetesArgs { node, server, ..KubernetesArgs::default() }.settings()
        };
        for (server, host, port, is_encrypted) in [
            ("https://10.96.0.1:443", "10.96.0.1", 443, true),
            ("https://api.example/", "api.example", 443, true),
            ("https://[fd00::1]:6443", "fd00::1", 6443, true),
            ("http://127.0.0.1:8001", "127.0.0.1", 8001, false),
        ] {
            let found = settings("node-1.example", server).expect(server);
            assert_eq!((&*found.server.host, found.server.port), (host, port));
            assert_eq!(found.is_encrypted, is_encrypted);
        }
        for server in
            ["", "10.96.0.1:443", "ftp://host", "https://", "https://user@host", "https://host/path"]
        {
            assert_eq!(settings("node", server), Err(KubernetesError::Server(server.to_owned())), "{server}");
        }
        for node in ["", "a&b", "Node", "a/b", &"n".repeat(254)] {
            assert_eq!(settings(node, "https://host"), Err(KubernetesError::Node(node.to_owned())), "{node}");
        }
    }
}
