//! Questions of a server that runs in another process: a byte for each question, and the text of the answer behind its
//! length.

use std::{
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::server::{Question, Server, serve, start_thread};

const NUMBERS: u8 = b'n';
const HEALTH: u8 = b'h';

/// A server in another process, which asks its questions through `stream`.
///
/// # Errors
/// The thread cannot be started.
pub fn ask_apart(stream: UnixStream) -> io::Result<Server> {
    let (sender, receiver) = mpsc::channel(1);
    start_thread(move || answer(stream, &sender))?;
    Ok(Server::asked(receiver))
}

/// In the process with the numbers: passes on the questions that come through `stream`, until the server ends or asks
/// anything else.
fn answer(mut stream: UnixStream, questions: &mpsc::Sender<Question>) {
    while answer_one(&mut stream, questions).is_ok() {}
}

fn answer_one(stream: &mut UnixStream, questions: &mpsc::Sender<Question>) -> io::Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let text = match kind {
        [NUMBERS] => ask(questions, Question::Numbers)?,
        [HEALTH] => ask(questions, Question::Health).map(|()| String::new())?,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    stream.write_all(&(text.len() as u64).to_le_bytes())?;
    stream.write_all(text.as_bytes())
}

fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> io::Result<T> {
    let (sender, answer) = oneshot::channel();
    questions.blocking_send(question(sender)).map_err(io::Error::other)?;
    answer.blocking_recv().map_err(io::Error::other)
}

/// In the process of the server: serves at `listener`, and asks through `stream`, in a thread.
///
/// # Errors
/// The thread cannot be started.
pub fn serve_apart(listener: TcpListener, stream: UnixStream) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, receiver) = mpsc::channel(1);
    start_thread(move || {
        let work = async {
            tokio::select! {
                () = serve(listener, sender) => {}
                // The process with the numbers has ended.
                _ = pass_on(receiver, stream) => {}
            }
        };
        LocalSet::new().block_on(&runtime, work);
    })
}

async fn pass_on(mut questions: mpsc::Receiver<Question>, stream: UnixStream) -> io::Result<()> {
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            // The next process must not wait for the port.
            () = ended(&stream) => None,
        };
        let Some(question) = question else { return Ok(()) };
        // The client may have gone.
        match question {
            Question::Numbers(sender) => drop(sender.send(exchange(&mut stream, NUMBERS).await?)),
            Question::Health(sender) => {
                exchange(&mut stream, HEALTH).await?;
                let _ = sender.send(());
            }
        }
    }
}

/// Waits for the end of the other process. It sends nothing unless it is asked.
async fn ended(stream: &tokio::net::UnixStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

async fn exchange(stream: &mut tokio::net::UnixStream, kind: u8) -> io::Result<String> {
    stream.write_all(&[kind]).await?;
    let len = stream.read_u64_le().await?;
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    stream.read_exact(&mut bytes).await?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::{super::server::listen, *};

    #[test]
    fn another_process_serves_the_numbers() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let mut server = ask_apart(ours).expect("a server");
        let address = listener.local_addr().expect("an address");
        serve_apart(listener, theirs).expect("a thread");
        let scraper = std::thread::spawn(move || {
            ["/metrics", "/healthz"].map(|path| {
                let mut stream = std::net::TcpStream::connect(address).expect("connect");
                write!(stream, "GET {path} HTTP/1.1\r\nhost: any\r\n\r\n").expect("write");
                let mut text = String::new();
                stream.read_to_string(&mut text).expect("read");
                text
            })
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for _ in 0..2 {
            match runtime.block_on(server.next_question()) {
                Question::Numbers(sender) => sender.send("a 1\n".to_owned()).expect("a server"),
                Question::Health(sender) => sender.send(()).expect("a server"),
            }
        }
        let [numbers, health] = scraper.join().expect("the scraper");
        assert!(numbers.ends_with("\r\n\r\na 1\n"), "{numbers}");
        assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
        let (mut wrong, ours) = UnixStream::pair().expect("sockets");
        wrong.write_all(b"x").expect("write");
        let (sender, _receiver) = mpsc::channel(1);
        answer(ours, &sender);
    }
}
