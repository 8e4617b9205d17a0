//! Events for containerd: one ordered queue, one in flight, the head is tried again until it went. A containerd that is
//! down, slow or new costs memory up to a bound and never an order or a container.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use containerd_shim::event::Event;
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use ttrpc::context;

/// How long one Forward may take.
const FORWARD: Duration = Duration::from_secs(5);
/// Most events kept while containerd does not take them.
const MAX_KEPT: usize = 4096;
/// How often containerd may refuse one event (not: be away) before it is given up.
const MAX_REFUSALS: u32 = 5;
const RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(1);
const EXIT_TOPIC: &str = containerd_shim_protos::topics::TASK_EXIT_EVENT_TOPIC;

/// An event with the name that containerd decodes it by. (Taking it from the descriptor would build protobuf's
/// reflection tables in the resident process.)
pub(crate) trait Named: Event + protobuf::Message {
    const TYPE: &'static str;
}

macro_rules! named {
    ($($event:ident),*) => {$(
        impl Named for $event {
            const TYPE: &'static str = concat!("containerd.events.", stringify!($event));
        }
    )*};
}
named!(TaskCreate, TaskStart, TaskExit, TaskDelete, TaskExecAdded, TaskExecStarted, TaskPaused, TaskResumed, TaskOOM);

#[derive(Debug)]
pub(crate) struct Publisher {
    namespace: String,
    /// Path of containerd's ttrpc socket.
    path: String,
    queue: Mutex<VecDeque<Envelope>>,
    more: Notify,
    drained: Notify,
}

impl Publisher {
    pub(crate) fn new(namespace: &str, address: &str) -> Self {
        Self {
            namespace: namespace.into(),
            path: address.strip_prefix("unix://").unwrap_or(address).into(),
            queue: Mutex::default(),
            more: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Puts an event at the end of the queue.
    pub(crate) fn publish<E: Named>(&self, event: &E) {
        // Writing to a Vec cannot fail for a message without required fields.
        let value = event.write_to_bytes().unwrap_or_default();
        let envelope = Envelope {
            timestamp: Some(now()).into(),
            namespace: self.namespace.clone(),
            topic: event.topic(),
            event: Some(Any { type_url: E::TYPE.into(), value, ..Default::default() }).into(),
            ..Default::default()
        };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(envelope);
        while queue.len() > MAX_KEPT {
            // The head is in flight; what tells an exit is the last to go.
            let victim = queue.iter().skip(1).position(|old| old.topic != EXIT_TOPIC).map_or(1, |at| at + 1);
            queue.remove(victim);
        }
        drop(queue);
        self.more.notify_one();
    }

    fn head(&self) -> Option<Envelope> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    fn done(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front();
        if queue.is_empty() {
            self.drained.notify_waiters();
        }
    }

    /// Sends for ever.
    pub(crate) async fn run(&self) {
        let mut client = None;
        let (mut refusals, mut pause) = (0, RETRY);
        loop {
            let Some(envelope) = self.head() else {
                self.more.notified().await;
                continue;
            };
            match self.forward(&mut client, envelope).await {
                Ok(()) => {
                    self.done();
                    (refusals, pause) = (0, RETRY);
                }
                Err(failure) => {
                    if let Failed::Refused = failure {
                        refusals += 1;
                        if refusals >= MAX_REFUSALS {
                            self.done();
                            refusals = 0;
                        }
                    } else {
                        client = None;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn forward(&self, client: &mut Option<Connection>, envelope: Envelope) -> Result<(), Failed> {
        let connection = match client {
            Some(connection) => connection,
            None => client.insert(Connection::open(&self.path).await.map_err(|_| Failed::Away)?),
        };
        let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
        let context = context::with_duration(FORWARD);
        match connection.client.forward(context, &request).await {
            Ok(_) => Ok(()),
            Err(ttrpc::Error::RpcStatus(_)) => Err(Failed::Refused),
            Err(_) => Err(Failed::Away),
        }
    }

    /// Waits until all is sent, at most so long.
    pub(crate) async fn flush(&self, at_most: Duration) {
        let drained = async {
            loop {
                let notified = self.drained.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.head().is_none() {
                    return;
                }
                notified.await;
            }
        };
        // What is left then is lost with us; containerd's `delete` makes up an exit for it.
        let _in_time = tokio::time::timeout(at_most, drained).await.is_ok();
    }
}

enum Failed {
    /// No connection, or it broke, or no answer in time.
    Away,
    /// containerd answered with an error.
    Refused,
}

struct Connection {
    client: EventsClient,
    /// The same socket, to close it when it is given up: the client's own reader would hold it open for as long as a
    /// silent containerd does.
    socket: std::os::fd::OwnedFd,
}

impl Connection {
    /// Never blocks, unlike `Client::connect`, which waits while a stopped containerd's backlog is full.
    async fn open(path: &str) -> std::io::Result<Self> {
        let stream = tokio::time::timeout(FORWARD, UnixStream::connect(path)).await??;
        let socket = stream.as_fd().try_clone_to_owned()?;
        Ok(Self { client: EventsClient::new(Client::new(stream.into())), socket })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd as _;
        // Not connected any more is what we want.
        let _was_open = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both).is_ok();
    }
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanos: since.subsec_nanos().cast_signed(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::MessageFull;

    #[test]
    fn names_are_those_of_the_descriptors() {
        fn check<E: Named + MessageFull>() {
            assert_eq!(E::TYPE, E::descriptor().full_name());
        }
        check::<TaskCreate>();
        check::<TaskStart>();
        check::<TaskExit>();
        check::<TaskDelete>();
        check::<TaskExecAdded>();
        check::<TaskExecStarted>();
        check::<TaskPaused>();
        check::<TaskResumed>();
        check::<TaskOOM>();
    }

    #[test]
    fn a_full_queue_drops_what_is_not_an_exit_and_never_the_head() {
        let publisher = Publisher::new("ns", "/nowhere");
        publisher.publish(&TaskCreate::default());
        publisher.publish(&TaskStart::default());
        for _ in 0..MAX_KEPT {
            publisher.publish(&TaskExit::default());
        }
        let queue = publisher.queue.lock().unwrap();
        assert_eq!(queue.len(), MAX_KEPT);
        assert_eq!(queue[0].topic, "/tasks/create");
        assert!(queue.iter().skip(1).all(|event| event.topic == EXIT_TOPIC));
    }
}
