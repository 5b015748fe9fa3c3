//! An API server of Kubernetes that answers as a test wants, with TLS: lists, and watches of JSON lines in chunks.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub token: String,
    pub accept: String,
}

impl Asked {
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.path == "/api/v1/pods" && self.query.contains_key("watch")
    }

    #[must_use]
    pub fn is_list(&self) -> bool {
        self.path == "/api/v1/pods" && !self.is_watch()
    }

    /// The version that the request names.
    pub fn version(&self) -> &str {
        self.query.get("resourceVersion").map_or("", String::as_str)
    }
}

/// The answer to a request.
pub struct Answer<'a> {
    stream: &'a mut Tls,
    is_open: bool,
}

impl Answer<'_> {
    /// A whole answer.
    pub fn json(&mut self, code: u16, body: &Value) {
        let body = body.to_string();
        self.write(&format!(
            "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    /// An error, as Kubernetes reports it.
    pub fn error(&mut self, code: u16) {
        self.json(code, &status(code));
    }

    /// The beginning of a watch.
    pub fn begin(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    /// A chunk of the watch.
    pub fn piece(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// A line of the watch.
    pub fn event(&mut self, kind: &str, object: &Value) {
        self.piece(&format!("{}\n", json!({ "type": kind, "object": object })));
    }

    /// The end of the watch, as after its time limit.
    pub fn end(&mut self) {
        self.write("0\r\n\r\n");
    }

    /// Ends the connection.
    pub fn hang_up(&mut self) {
        let _ = self.stream.sock.shutdown(std::net::Shutdown::Both);
        self.is_open = false;
    }

    /// Whether the client is still there.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    fn write(&mut self, text: &str) {
        let written = self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush());
        self.is_open &= written.is_ok();
    }
}

pub fn status(code: u16) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "message": format!("reason {code}") })
}

/// The server, with the files of a service account.
pub struct ApiServer {
    port: u16,
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ApiServer {
    /// Answers each request with `answer`.
    pub fn start(answer: impl Fn(&Asked, &mut Answer<'_>) + Send + Sync + 'static) -> Self {
        Self::at(0, answer)
    }

    /// At a port.
    pub fn at(port: u16, answer: impl Fn(&Asked, &mut Answer<'_>) + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let config = Arc::new(builder.with_single_cert(chain, key).expect("config"));
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
        let directory = tempfile::tempdir().expect("directory");
        fs::write(directory.path().join("ca.crt"), pem).expect("certificate");
        let server =
            Self { port: listener.local_addr().expect("address").port(), directory, asked: Arc::default() };
        server.set_token("first");
        let (answer, asked) = (Arc::new(answer), Arc::clone(&server.asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                let connection = ServerConnection::new(Arc::clone(&config)).expect("TLS");
                let tls = StreamOwned::new(connection, stream);
                thread::spawn(move || serve(tls, &asked, &*answer));
            }
        });
        server
    }

    pub fn set_token(&self, token: &str) {
        // As the kubelet does it, at once.
        let new = self.path("token.new");
        fs::write(&new, format!("{token}\n")).expect("token");
        fs::rename(new, self.path("token")).expect("token");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }
}

fn serve(tls: Tls, asked: &Mutex<Vec<Asked>>, answer: &(impl Fn(&Asked, &mut Answer<'_>) + ?Sized)) {
    let mut reader = BufReader::new(tls);
    while let Some(request) = read(&mut reader) {
        asked.lock().expect("lock").push(request.clone());
        let mut open = Answer { stream: reader.get_mut(), is_open: true };
        answer(&request, &mut open);
        if !open.is_open {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), value.replace("%3D", "="))
    };
    let mut request = Asked { path: path.to_owned(), ..Asked::default() };
    request.query = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(request) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.token = value.trim_start_matches("Bearer ").to_owned(),
            "accept" => request.accept = value.to_owned(),
            _ => {}
        }
    }
}

/// Waits until the client hangs up.
pub fn wait_for_end(answer: &mut Answer<'_>) {
    let mut rest = [0; 16];
    while answer.stream.read(&mut rest).is_ok_and(|read| read > 0) {}
    answer.is_open = false;
}

/// A pod with an owner of a kind: its metadata only.
pub fn pod(uid: &str, name: &str, owner: Option<(&str, &str, &str)>, labels: &Value) -> Value {
    let owners = owner.into_iter().map(|(version, kind, name)| reference(version, kind, name));
    json!({
        "kind": "PartialObjectMetadata",
        "metadata": {
            "uid": uid, "name": name, "namespace": "shop", "resourceVersion": "7", "labels": labels,
            "ownerReferences": owners.collect::<Vec<_>>(), "managedFields": [{ "manager": "x" }],
        },
    })
}

pub fn reference(version: &str, kind: &str, name: &str) -> Value {
    json!({ "apiVersion": version, "kind": kind, "name": name, "uid": "x", "controller": true })
}

/// A ReplicaSet, a Job: an object with an owner.
pub fn owned(version: &str, kind: &str, name: &str) -> Value {
    json!({ "metadata": { "name": "x", "ownerReferences": [reference(version, kind, name)] } })
}

pub fn list(version: &str, next: &str, items: &[Value]) -> Value {
    json!({
        "kind": "PartialObjectMetadataList", "metadata": { "resourceVersion": version, "continue": next },
        "items": items,
    })
}
