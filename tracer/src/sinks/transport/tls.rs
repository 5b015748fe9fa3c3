//! TLS to a collector, by rustls with ring.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::Connection;
use crate::{files, sinks::delivery::OpenError};

/// The files for TLS, all PEM: the trusted certificate authorities, and the client's certificate.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities to trust instead of the system's (PEM).
    #[arg(id = "tls_ca", long = "tls-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate (PEM).
    #[arg(id = "tls_cert", long = "tls-cert", value_name = "FILE", requires = "tls_key")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM).
    #[arg(id = "tls_key", long = "tls-key", value_name = "FILE", requires = "tls_cert")]
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// The files that the keys name.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key].into_iter().filter_map(Option::as_deref)
    }
}

/// The files, and the name of the collector.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The files.
    #[command(flatten)]
    pub files: TlsFiles,
    /// The name that the collector's certificate must have, instead of the host in the address.
    #[arg(id = "tls_name", long = "tls-name", value_name = "NAME")]
    pub name: Option<String>,
}

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or has wrong content.
    #[error("cannot use {path} for TLS: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        path: String,
        reason: String,
    },
    /// No certificate can have the name.
    #[error("'tls-name' must be a host's name or address")]
    Name,
    /// The system has no certificate authorities.
    #[error("this system has no certificate authorities; install ca-certificates or set 'tls-ca'")]
    NoAuthorities,
    /// The certificate and the key do not match, or rustls refuses them.
    #[error("cannot set up TLS: {0}")]
    Config(#[from] tokio_rustls::rustls::Error),
    /// Only one of the two is set.
    #[error("'tls-cert' and 'tls-key' must be set together")]
    Half,
}

impl TlsError {
    /// The key of a sink that it is about.
    fn key(&self) -> &'static str {
        match self {
            Self::File { key, .. } => key,
            Self::Name => "tls-name",
            Self::NoAuthorities => "tls-ca",
            Self::Config(_) | Self::Half => "tls-cert",
        }
    }
}

impl TlsSettings {
    /// Everything that is wrong with the files, each with its key.
    pub(crate) fn problems(&self) -> Vec<(&'static str, OpenError)> {
        self.errors().into_iter().map(|error| (error.key(), error.into())).collect()
    }

    fn errors(&self) -> Vec<TlsError> {
        let Err(error) = config(self) else { return Vec::new() };
        let found = [
            self.server_name().err(),
            authorities(self.files.ca.as_deref()).err(),
            self.files.cert.as_deref().and_then(|path| certificates("tls-cert", path).err()),
            self.files.key.as_deref().and_then(|path| private_key(path).err()),
        ];
        let found: Vec<TlsError> = found.into_iter().flatten().collect();
        if found.is_empty() { vec![error] } else { found }
    }

    fn server_name(&self) -> Result<Option<ServerName<'static>>, TlsError> {
        let name = self.name.clone().map(ServerName::try_from).transpose();
        name.map_err(|_| TlsError::Name)
    }
}

/// A TLS client with its configuration.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: Option<String>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self::with(config(settings)?, settings))
    }

    /// Also offers HTTP/2 by ALPN: some servers need the offer.
    #[cfg(feature = "grpc")]
    pub(crate) fn for_http2(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut config = config(settings)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self::with(config, settings))
    }

    fn with(config: ClientConfig, settings: &TlsSettings) -> Self {
        Self { connector: Arc::new(config).into(), name: settings.name.clone() }
    }

    /// Does the handshake with `host`.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Connection> {
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        Ok(Connection::Tls(Box::new(self.connector.connect(name, stream).await?)))
    }
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    settings.server_name()?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities(settings.files.ca.as_deref())?);
    match (&settings.files.cert, &settings.files.key) {
        (Some(cert), Some(key)) => {
            Ok(builder.with_client_auth_cert(certificates("tls-cert", cert)?, private_key(key)?)?)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(TlsError::Half),
    }
}

fn authorities(path: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match path {
        Some(path) => {
            for certificate in certificates("tls-ca", path)? {
                store.add(certificate).map_err(|error| file("tls-ca", path, &error))?;
            }
        }
        None => {
            // If some cannot be read, the others are used.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(store)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(&bytes(key, path)?).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(file(key, path, &"no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(file(key, path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&bytes("tls-key", path)?).map_err(|error| file("tls-key", path, &error))
}

fn bytes(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    files::read(path, files::MOST_SETTINGS).map_err(|error| file(key, path, &error))
}

fn file(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { key, path: files::shown(key, path), reason: reason.to_string() }
}
