//! containerd's own records, over its gRPC socket: one connection, one thread, one deadline for all of it.
//!
//! Calling back while containerd waits for our answer is free of deadlocks (its stores are read without locks held by
//! the Create call); a socket that stays silent costs at most [`CAP`]. Dropping the [`Client`] closes the connection;
//! no thread is left behind, so what follows may fork.
mod draft;

use crate::cri;
use boltseal_message::Mount;
use containerd_client::services::v1 as api;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Longest time that one connection may take in all, whatever deadline the caller gives.
pub const CAP: Duration = Duration::from_secs(2);
/// Largest single answer. A container record holds its spec, which is bounded by 1 MiB, and its CRI metadata.
const MAX_MESSAGE: usize = 4 << 20;
/// A list of all images; no start asks for it.
const MAX_LIST: usize = 32 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No answer in time. The call that waited.
    Timeout(&'static str),
    /// The socket cannot be reached, or what answers does not speak gRPC.
    Unavailable {
        call: &'static str,
        why: String,
    },
    NotFound {
        call: &'static str,
        what: String,
    },
    /// An answer that breaks its own contract, or a name that cannot be sent.
    Malformed {
        call: &'static str,
        why: String,
    },
    /// More bytes than the caller allows.
    TooLarge {
        call: &'static str,
        cap: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(call) => write!(f, "containerd did not answer {call} in time"),
            Self::Unavailable { call, why } => write!(f, "containerd cannot be asked ({call}): {why}"),
            Self::NotFound { call, what } => write!(f, "containerd has no {what} ({call})"),
            Self::Malformed { call, why } => write!(f, "containerd's answer to {call} makes no sense: {why}"),
            Self::TooLarge { call, cap } => write!(f, "containerd's answer to {call} is larger than {cap} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// containerd's record of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Image name: text, never identity.
    pub image: String,
    pub snapshotter: String,
    pub snapshot_key: String,
    pub runtime_name: String,
    pub labels: BTreeMap<String, String>,
    /// The sandbox that it belongs to: the record's own field (containerd 2.x), else CRI's metadata (1.x). For a
    /// sandbox its own id when CRI made it; None when no CRI made it.
    pub sandbox_id: Option<String>,
    /// CRI's own metadata in the record; None when no CRI made it. An extension that does not parse is an error.
    pub cri: Option<cri::Metadata>,
    /// The spec in the record, as containerd stored it (JSON).
    pub spec: Vec<u8>,
}

/// What an image name points to now. Names can be re-pointed: only the digest says anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub digest: String,
    pub media_type: String,
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStat {
    pub parent: String,
    /// Active: a container's own; not a view and not committed.
    pub active: bool,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub parent: String,
    pub active: bool,
    pub mounts: Vec<Mount>,
}

/// A connection to one containerd, within one of its namespaces.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    deadline: Instant,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the socket at `address` (a path, or `unix://` and a path). Everything that this client does ends at
    /// `deadline` or [`CAP`] from now, whichever is earlier.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Unavailable`], or [`Error::Malformed`] for a namespace that no header can carry.
    pub fn connect(address: &str, namespace: &str, deadline: Instant) -> Result<Self, Error> {
        const CALL: &str = "connect";
        let deadline = deadline.min(Instant::now() + CAP);
        let namespace = namespace
            .parse::<MetadataValue<Ascii>>()
            .map_err(|_| Error::Malformed { call: CALL, why: format!("namespace {namespace:?}") })?;
        let path = address.strip_prefix("unix://").unwrap_or(address).to_owned();
        let unavailable = |why: String| Error::Unavailable { call: CALL, why };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| unavailable(e.to_string()))?;
        let shown = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
        });
        // The URI is never resolved: the connector decides where the bytes go.
        let endpoint = Endpoint::from_static("http://containerd.invalid");
        let connected = runtime.block_on(async {
            tokio::time::timeout_at(deadline.into(), endpoint.connect_with_connector(connector)).await
        });
        let channel = connected
            .map_err(|_| Error::Timeout(CALL))?
            .map_err(|e| unavailable(format!("{shown}: {}", sources(&e))))?;
        Ok(Self { runtime, channel, namespace, deadline })
    }

    /// containerd's record of container `id`.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn container(&self, id: &str) -> Result<Container, Error> {
        const CALL: &str = "Containers.Get";
        let mut service =
            api::containers_client::ContainersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.request(api::GetContainerRequest { id: id.to_owned() });
        let found = self.call(CALL, &format!("container {id:?}"), service.get(request))?.container;
        let found = found.ok_or_else(|| malformed(CALL, "no container in it"))?;
        if found.id != id {
            return Err(malformed(CALL, &format!("asked for {id:?}, got {:?}", found.id)));
        }
        let cri = cri::metadata(id, &found.extensions).map_err(|why| malformed(CALL, &why))?;
        let sandbox_id = match (found.sandbox.as_str(), &cri) {
            ("", None) => None,
            ("", Some(cri)) => Some(cri.sandbox_id.clone()),
            (id, None) => Some(id.to_owned()),
            (id, Some(cri)) if cri.sandbox_id == id => Some(id.to_owned()),
            (id, Some(cri)) => {
                let why = format!("its sandbox is {id:?}, but {:?} in CRI's metadata", cri.sandbox_id);
                return Err(malformed(CALL, &why));
            }
        };
        Ok(Container {
            id: found.id,
            image: found.image,
            snapshotter: found.snapshotter,
            snapshot_key: found.snapshot_key,
            runtime_name: found.runtime.map(|r| r.name).unwrap_or_default(),
            labels: found.labels.into_iter().collect(),
            sandbox_id,
            cri,
            spec: found.spec.map(|s| s.value).unwrap_or_default(),
        })
    }

    /// What the image name points to now.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn image(&self, name: &str) -> Result<Target, Error> {
        const CALL: &str = "Images.Get";
        let mut service =
            api::images_client::ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.request(api::GetImageRequest { name: name.to_owned() });
        let found = self.call(CALL, &format!("image {name:?}"), service.get(request))?.image;
        let target = found.and_then(|i| i.target).ok_or_else(|| malformed(CALL, "no target in it"))?;
        let size = u64::try_from(target.size).map_err(|_| malformed(CALL, "a negative size"))?;
        Ok(Target { digest: target.digest, media_type: target.media_type, size })
    }

    /// Bytes of a blob of the content store, at most `cap` of them. The caller hashes them: nothing here does.
    ///
    /// # Errors
    /// [`Error::TooLarge`] as soon as more than `cap` bytes arrive, else any of [`Error`].
    pub fn blob(&self, digest: &str, cap: usize) -> Result<Vec<u8>, Error> {
        const CALL: &str = "Content.Read";
        let mut service =
            api::content_client::ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.request(api::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let what = format!("blob {digest:?}");
        let mut stream = self.call(CALL, &what, service.read(request))?;
        let mut bytes = Vec::new();
        while let Some(part) = self.within(CALL, &what, stream.message())? {
            if u64::try_from(part.offset).ok() != u64::try_from(bytes.len()).ok() {
                return Err(malformed(CALL, "parts that do not follow each other"));
            }
            if part.data.len() > cap.saturating_sub(bytes.len()) {
                return Err(Error::TooLarge { call: CALL, cap });
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Every namespace of this containerd.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn namespaces(&self) -> Result<Vec<String>, Error> {
        const CALL: &str = "Namespaces.List";
        let mut service =
            api::namespaces_client::NamespacesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.request(api::ListNamespacesRequest { filter: String::new() });
        let found = self.call(CALL, "namespaces", service.list(request))?.namespaces;
        Ok(found.into_iter().map(|namespace| namespace.name).collect())
    }

    /// The digests that this namespace's image names point to.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn targets(&self) -> Result<Vec<String>, Error> {
        const CALL: &str = "Images.List";
        let mut service =
            api::images_client::ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_LIST);
        let request = self.request(api::ListImagesRequest { filters: Vec::new() });
        let found = self.call(CALL, "images", service.list(request))?.images;
        let target = |image: api::Image| image.target.map(|target| target.digest);
        found
            .into_iter()
            .map(|image| target(image).ok_or_else(|| malformed(CALL, "an image without a target")))
            .collect()
    }

    /// Whether this namespace's content store has the blob.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::NotFound`].
    pub fn has_blob(&self, digest: &str) -> Result<bool, Error> {
        const CALL: &str = "Content.Info";
        let mut service =
            api::content_client::ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = self.request(api::InfoRequest { digest: digest.to_owned() });
        match self.call(CALL, &format!("blob {digest:?}"), service.info(request)) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Parent and kind of a snapshot.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn snapshot_stat(&self, snapshotter: &str, key: &str) -> Result<SnapshotStat, Error> {
        const CALL: &str = "Snapshots.Stat";
        let request = self
            .request(api::snapshots::StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
        let mut service = api::snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let found = self.call(CALL, &format!("snapshot {key:?}"), service.stat(request))?.info;
        let info = found.ok_or_else(|| malformed(CALL, "no snapshot in it"))?;
        if info.name != key {
            return Err(malformed(CALL, &format!("asked for {key:?}, got {:?}", info.name)));
        }
        Ok(SnapshotStat {
            active: info.kind == i32::from(api::snapshots::Kind::Active),
            parent: info.parent,
            labels: info.labels.into_iter().collect(),
        })
    }

    /// Parent, kind and mounts of a snapshot.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn snapshot(&self, snapshotter: &str, key: &str) -> Result<Snapshot, Error> {
        const CALL: &str = "Snapshots.Mounts";
        let stat = self.snapshot_stat(snapshotter, key)?;
        let request =
            self.request(api::snapshots::MountsRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() });
        let mut service = api::snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE);
        let mounts = self.call(CALL, &format!("snapshot {key:?}"), service.mounts(request))?.mounts;
        let mounts = mounts
            .into_iter()
            .map(|m| Mount { kind: m.r#type, source: m.source, target: m.target, options: m.options })
            .collect();
        Ok(Snapshot { parent: stat.parent, active: stat.active, mounts })
    }

    fn request<T>(&self, body: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn call<T>(
        &self,
        call: &'static str,
        what: &str,
        future: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        self.within(call, what, future).map(tonic::Response::into_inner)
    }

    fn within<T>(
        &self,
        call: &'static str,
        what: &str,
        future: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, Error> {
        let answer = self.runtime.block_on(async { tokio::time::timeout_at(self.deadline.into(), future).await });
        answer.map_err(|_| Error::Timeout(call))?.map_err(|status| {
            let why = format!("{:?}: {}", status.code(), status.message());
            match status.code() {
                tonic::Code::NotFound => Error::NotFound { call, what: what.to_owned() },
                tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Error::TooLarge { call, cap: MAX_MESSAGE },
                tonic::Code::DeadlineExceeded => Error::Timeout(call),
                _ => Error::Unavailable { call, why },
            }
        })
    }
}

fn malformed(call: &'static str, why: &str) -> Error {
    Error::Malformed { call, why: why.to_owned() }
}

/// An error with its causes: tonic's own text is only `transport error`.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// A peer that does `act` with each connection, on a thread that ends with the test's process.
    fn peer(act: fn(std::os::unix::net::UnixStream)) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                act(stream.unwrap());
            }
        });
        (dir, path.to_str().unwrap().to_owned())
    }

    fn ask(address: &str, patience: Duration) -> (Result<Container, Error>, Duration) {
        let start = Instant::now();
        let result = Client::connect(address, "default", start + patience).and_then(|c| c.container("c1"));
        (result, start.elapsed())
    }

    #[test]
    fn a_silent_peer_costs_no_more_than_the_deadline() {
        let (_dir, address) = peer(std::mem::forget);
        let (result, took) = ask(&address, Duration::from_millis(300));
        assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
        assert!(took < Duration::from_millis(600), "{took:?}");
    }

    #[test]
    fn the_cap_holds_whatever_the_caller_would_wait() {
        let (_dir, address) = peer(std::mem::forget);
        let (result, took) = ask(&address, Duration::from_secs(60));
        assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
        assert!(took < CAP + Duration::from_millis(500), "{took:?}");
    }

    #[test]
    fn a_peer_that_accepts_nothing_is_no_hang() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let (result, took) = ask(path.to_str().unwrap(), Duration::from_millis(300));
        assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
        assert!(took < Duration::from_millis(600), "{took:?}");
    }

    #[test]
    fn a_peer_that_hangs_up_is_unavailable() {
        let (_dir, address) = peer(drop);
        let (result, _) = ask(&address, CAP);
        assert!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");
    }

    #[test]
    fn a_peer_that_talks_something_else_is_unavailable() {
        let (_dir, address) = peer(|mut stream| {
            stream.write_all(&[0xAA; 4096]).unwrap();
            let mut sink = [0; 512];
            while stream.read(&mut sink).is_ok_and(|n| n > 0) {}
        });
        let (result, _) = ask(&address, CAP);
        assert!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");
    }

    #[test]
    fn a_missing_socket_names_its_path() {
        let Err(error) = Client::connect("/nonexistent/c.sock", "default", Instant::now() + CAP) else {
            panic!("connected to nothing");
        };
        assert!(error.to_string().contains("/nonexistent/c.sock"), "{error}");
    }

    #[test]
    fn a_namespace_that_no_header_carries_is_refused() {
        let error = Client::connect("/nonexistent", "a\nb", Instant::now() + CAP).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error:?}");
    }
}
