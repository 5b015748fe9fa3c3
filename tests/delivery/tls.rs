//! TLS: the certificates that a sink trusts, and the certificate that it shows.

use std::{
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use sockstate::sinks::{Address, Framing, Inherited, StreamSettings, TlsFiles, TlsSettings};

use crate::{
    all,
    collector::{Feeder, listen, seq, settings},
};

/// A certificate for `localhost`, signed by itself, and its key, both PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The bytes that a TLS server reads from its first connection with a complete handshake.
fn tls_server(
    listener: TcpListener,
    cert: &str,
    key: &str,
    clients: Option<&str>,
) -> thread::JoinHandle<String> {
    use tokio_rustls::rustls::{
        RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("verifier"))
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let config = Arc::new(builder.with_single_cert(chain, key).expect("config"));
    thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().expect("connection");
            let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS");
            let mut stream: StreamOwned<ServerConnection, TcpStream> = StreamOwned::new(connection, stream);
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() {
                return text;
            }
        }
    })
}

#[test]
fn tls_trusts_whom_it_should_and_shows_who_it_is() {
    let directory = tempfile::tempdir().expect("directory");
    let save = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("write");
        Some(path)
    };
    let (cert, key) = certificate();
    let (other, other_key) = certificate();
    let (listener, port) = listen();
    let server = tls_server(listener, &cert, &key, Some(&other));
    let address: Address = format!("tls://localhost:{port}").parse().expect("address");
    let good = TlsFiles {
        ca: save("ca.pem", &cert),
        cert: save("cert.pem", &other),
        key: save("key.pem", &other_key),
    };
    let wrong = TlsFiles { ca: save("other.pem", &other), ..good.clone() };
    let target = |tls: &TlsFiles| StreamSettings {
        address: address.clone(),
        tls: TlsSettings { files: tls.clone(), name: None },
        framing: Framing::Lines,
    };
    let mut feeder = Feeder::start(&settings(target(&wrong)), None);
    feeder.push(1);
    feeder.wait_until("a stranger is not trusted", |status| status.failures() > 1);
    assert_eq!(feeder.queue.status().delivered(), 0);
    feeder.end(Duration::ZERO);
    assert_eq!(feeder.queue.status().lost(), 1, "given up at the end, and counted");
    let mut feeder = Feeder::start(&settings(target(&good)), None);
    feeder.push(1000);
    feeder.wait_until("delivery", |status| status.delivered() == 1000);
    feeder.end(Duration::from_secs(5));
    let text = server.join().expect("server");
    assert_eq!(text.lines().map(seq).collect::<Vec<_>>(), all(1000));
}

#[test]
fn files_that_are_no_certificates_are_an_error_that_names_them() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ca.pem");
    fs::write(&path, "nothing").expect("write");
    let files = TlsFiles { ca: Some(path.clone()), ..TlsFiles::default() };
    let tls = TlsSettings { files, name: None };
    let address = "tls://localhost:1".parse().expect("address");
    let settings = settings(StreamSettings { address, tls, framing: Framing::Lines });
    let error = sockstate::sinks::start(&settings, Vec::new(), None, Inherited::default())
        .err()
        .expect("an error")
        .to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("sink test"), "{error}");
}
