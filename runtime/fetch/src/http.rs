//! HTTP/1.1 as far as a registry needs it: one request at a time, over TLS, with a cap on all that comes back.
use crate::proxy::{Proxy, passes};
use crate::url::{Url, bracketed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest head of an answer, bytes, and most headers.
const MAX_HEAD: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// All bytes of all bodies, and all requests.
const MAX_BYTES: usize = 32 << 20;
const MAX_REQUESTS: usize = 256;
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What is sent.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub url: &'a Url,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// Largest body of the answer, bytes.
    pub most: usize,
}

/// Where a request may go, and what is left of what all may cost.
pub struct Client {
    tls: Arc<ClientConfig>,
    proxy: Option<Proxy>,
    no_proxy: String,
    plain_http: Vec<String>,
    deadline: Instant,
    bytes: usize,
    requests: usize,
    idle: Option<(Url, Stream)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("requests", &self.requests).finish_non_exhaustive()
    }
}

enum Stream {
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Plain(TcpStream),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(stream) => &stream.sock,
            Self::Plain(stream) => stream,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.read(room),
            Self::Plain(stream) => stream.read(room),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tls(stream) => stream.write(bytes),
            Self::Plain(stream) => stream.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Plain(stream) => stream.flush(),
        }
    }
}

impl Client {
    /// `ca`: PEM of the authorities that servers' certificates lead to.
    ///
    /// # Errors
    /// There is none in it.
    pub fn new(
        ca: &str,
        proxy: Option<Proxy>,
        no_proxy: String,
        plain_http: Vec<String>,
        deadline: Instant,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(ca.as_bytes()).flatten();
        let (taken, _) = roots.add_parsable_certificates(found);
        if taken == 0 && plain_http.is_empty() {
            return Err("no certificate authority. Fix: ca = [\"FILE\"] in /etc/boltseal/fetch.toml".into());
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), proxy, no_proxy, plain_http, deadline, bytes: 0, requests: 0, idle: None })
    }

    /// Sends one request and reads its whole answer, whatever its status. Redirects are the caller's.
    ///
    /// # Errors
    /// A sentence: no connection, no time, more than is taken, or not HTTP.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Answer, String> {
        let url = request.url;
        if !url.tls && !self.plain_http.contains(&url.authority()) {
            return Err(format!("{url}: only https is spoken"));
        }
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(format!("more than {MAX_REQUESTS} requests"));
        }
        let text = head_of(request)?;
        // A connection that was kept may have been closed meanwhile: once more, on a new one.
        if let Some((_, mut stream)) = self.idle.take().filter(|(at, _)| at.same_place(url))
            && let Ok((answer, keep)) = self.exchange(&mut stream, &text, request)
        {
            self.keep(url, stream, keep);
            return Ok(answer);
        }
        let mut stream = self.connect(url).map_err(|e| format!("{e} ({url})"))?;
        let (answer, keep) = self.exchange(&mut stream, &text, request).map_err(|e| format!("{e} ({url})"))?;
        self.keep(url, stream, keep);
        Ok(answer)
    }

    fn keep(&mut self, url: &Url, stream: Stream, keep: bool) {
        self.idle = keep.then(|| (url.clone(), stream));
    }

    fn left(&self) -> Result<Duration, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err("no time left".into()) } else { Ok(left) }
    }

    fn connect(&self, url: &Url) -> Result<Stream, String> {
        let proxy = self.proxy.as_ref().filter(|_| url.tls && !passes(&self.no_proxy, url));
        let (host, port) = proxy.map_or((url.host.as_str(), url.port), |p| (p.host.as_str(), p.port));
        let mut socket = self.dial(host, port)?;
        if let Some(proxy) = proxy {
            self.tunnel(&mut socket, url, proxy)?;
        }
        if !url.tls {
            return Ok(Stream::Plain(socket));
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|_| "no name that a certificate could have")?;
        let session = ClientConnection::new(self.tls.clone(), name).map_err(|e| e.to_string())?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    fn dial(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let found = (host, port).to_socket_addrs().map_err(|e| format!("{host} cannot be found: {e}"))?;
        let mut last = format!("{host} has no address");
        for address in found.take(8) {
            match TcpStream::connect_timeout(&address, self.left()?.min(CONNECT)) {
                Ok(socket) => return Ok(socket),
                Err(e) => last = format!("{address}: {e}"),
            }
        }
        Err(last)
    }

    fn tunnel(&self, socket: &mut TcpStream, url: &Url, proxy: &Proxy) -> Result<(), String> {
        let to = format!("{}:{}", bracketed(&url.host), url.port);
        let authorization = proxy.authorization.as_ref().map(|a| format!("Proxy-Authorization: {a}\r\n"));
        let text = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", authorization.unwrap_or_default());
        socket.set_write_timeout(Some(self.left()?)).and_then(|()| socket.write_all(text.as_bytes())).map_err(say)?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head is TLS already.
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.set_read_timeout(Some(self.left()?)).map_err(say)?;
            if head.len() == MAX_HEAD || socket.read(&mut byte).map_err(say)? == 0 {
                return Err("the proxy answers something else than HTTP".into());
            }
            head.extend_from_slice(&byte);
        }
        match parse_head(&head)? {
            Some((_, status, _)) if (200..300).contains(&status) => Ok(()),
            Some((_, status, _)) => Err(format!("the proxy answers {status}")),
            None => Err("the proxy answers something else than HTTP".into()),
        }
    }

    /// The answer, and whether the connection can serve another.
    fn exchange(&mut self, stream: &mut Stream, text: &[u8], request: &Request<'_>) -> Result<(Answer, bool), String> {
        stream.socket().set_write_timeout(Some(self.left()?)).map_err(say)?;
        stream.socket().set_read_timeout(Some(self.left()?)).map_err(say)?;
        stream
            .write_all(text)
            .and_then(|()| stream.write_all(request.body))
            .and_then(|()| stream.flush())
            .map_err(say)?;
        let mut incoming = Incoming { buffer: Vec::new(), deadline: self.deadline };
        let (status, headers) = loop {
            if let Some((length, status, headers)) = parse_head(&incoming.buffer)? {
                incoming.buffer.drain(..length);
                // 1xx: the answer proper follows.
                if status >= 200 {
                    break (status, headers);
                }
                continue;
            }
            if incoming.buffer.len() > MAX_HEAD {
                return Err("a head that is too long".into());
            }
            if incoming.more(stream)? == 0 {
                return Err("closed before an answer".into());
            }
        };
        let answer = Answer { status, headers, body: Vec::new() };
        let most = request.most.min(MAX_BYTES.saturating_sub(self.bytes));
        let (body, whole) = body(&answer, request.method, &mut incoming, stream, most)?;
        self.bytes += body.len();
        let keep = whole
            && incoming.buffer.is_empty()
            && !answer.all("connection").any(|value| value.to_ascii_lowercase().contains("close"));
        Ok((Answer { body, ..answer }, keep))
    }
}

fn say(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".into(),
        _ => error.to_string(),
    }
}

fn head_of(request: &Request<'_>) -> Result<Vec<u8>, String> {
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", request.method, request.url.path, request.url.authority());
    text.push_str(concat!("User-Agent: boltseal-fetch/", env!("CARGO_PKG_VERSION"), "\r\n"));
    for (name, value) in request.headers {
        if !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(format!("{name}: a value that cannot be sent"));
        }
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !request.body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

type Head = (usize, u16, Vec<(String, String)>);

/// Length, status and headers; None where more must come.
///
/// # Errors
/// It is not HTTP/1.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut room);
    match head.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Err(e) => Err(format!("not HTTP: {e}")),
        Ok(httparse::Status::Complete(length)) => {
            let headers = head.headers.iter().filter_map(|h| {
                Some((h.name.to_ascii_lowercase(), std::str::from_utf8(h.value).ok()?.trim().to_owned()))
            });
            Ok(Some((length, head.code.unwrap_or(0), headers.collect())))
        }
    }
}

struct Incoming {
    buffer: Vec<u8>,
    deadline: Instant,
}

impl Incoming {
    /// Reads what is there, waiting no longer than the deadline: a byte now and then does not stretch it.
    fn more(&mut self, stream: &mut Stream) -> Result<usize, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in time".into());
        }
        stream.socket().set_read_timeout(Some(left)).map_err(say)?;
        let mut part = [0; 16 << 10];
        let read = match stream.read(&mut part) {
            // A peer that closes TCP without closing TLS: what lacks shows by its digest.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other.map_err(say)?,
        };
        self.buffer.extend_from_slice(part.get(..read).unwrap_or_default());
        Ok(read)
    }

    fn line(&mut self, stream: &mut Stream) -> Result<String, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| "a chunk that cannot be read".into());
            }
            if self.buffer.len() > 1024 || self.more(stream)? == 0 {
                return Err("a chunk that cannot be read".into());
            }
        }
    }

    fn exactly(&mut self, stream: &mut Stream, length: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < length {
            if self.more(stream)? == 0 {
                return Err("closed before its end".into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }
}

/// The body, and whether its end was marked.
fn body(
    answer: &Answer,
    method: &str,
    incoming: &mut Incoming,
    stream: &mut Stream,
    most: usize,
) -> Result<(Vec<u8>, bool), String> {
    let large = || format!("a body of more than {most} bytes");
    if method == "HEAD" || matches!(answer.status, 204 | 304) {
        return Ok((Vec::new(), true));
    }
    let lengths: Vec<&str> = answer.all("content-length").collect();
    let encodings: Vec<&str> = answer.all("transfer-encoding").collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], [encoding]) if encoding.eq_ignore_ascii_case("chunked") => {
            let mut whole = Vec::new();
            loop {
                let line = incoming.line(stream)?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let length = if digits.len() <= 8 { usize::from_str_radix(digits, 16).ok() } else { None };
                let length = length.ok_or("a chunk that cannot be read")?;
                if length > most - whole.len() {
                    return Err(large());
                }
                if length == 0 {
                    // Trailers, which say nothing here.
                    for _ in 0..MAX_HEADERS {
                        if incoming.line(stream)?.is_empty() {
                            return Ok((whole, true));
                        }
                    }
                    return Err("too many trailers".into());
                }
                whole.extend(incoming.exactly(stream, length)?);
                if incoming.exactly(stream, 2)? != b"\r\n" {
                    return Err("a chunk that cannot be read".into());
                }
            }
        }
        ([length], []) => {
            let digits = length.bytes().all(|b| b.is_ascii_digit());
            let length = length.parse::<usize>().ok().filter(|_| digits).ok_or("a length that cannot be read")?;
            if length > most {
                return Err(large());
            }
            Ok((incoming.exactly(stream, length)?, true))
        }
        ([], []) => {
            while incoming.buffer.len() <= most {
                if incoming.more(stream)? == 0 {
                    return Ok((std::mem::take(&mut incoming.buffer), false));
                }
            }
            Err(large())
        }
        _ => Err("a body of which nobody can say where it ends".into()),
    }
}
