//! Each message's form on the wire: fields in the order of their declaration, an enum's tag first.

use crate::wire::{DecodeError, FrameKind, Reader, VERSION, Wire, Writer, put_bytes, put_list, take_bytes, take_list};
use crate::{
    Anomaly, Code, Create, Created, Event, EventKind, Exec, Expected, FileStamp, Mount, Operation, Refusal, Reply,
    Request, Stdio, Trap,
};

impl Request {
    /// The whole frame, header included, in this build's version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(VERSION)
    }

    fn encode_as(&self, version: u16) -> Vec<u8> {
        let mut w = Writer::new(FrameKind::Request, version);
        self.put(&mut w);
        w.finish()
    }

    /// # Errors
    /// Anything but exactly one whole, well-formed request of a version that this build serves.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame, FrameKind::Request)?;
        let request = Self::take(&mut r)?;
        r.end()?;
        Ok(request)
    }
}

impl Reply {
    /// The whole frame, header included, in this build's version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(VERSION)
    }

    /// The same in the version that the request came in (`FrameHeader::version`): the shim that waits may be older
    /// than the gate that an upgrade brought.
    #[must_use]
    pub fn encode_as(&self, version: u16) -> Vec<u8> {
        let mut w = Writer::new(FrameKind::Reply, version);
        self.put(&mut w);
        w.finish()
    }

    /// # Errors
    /// Anything but exactly one whole, well-formed reply of a version that this build serves.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(frame, FrameKind::Reply)?;
        let reply = Self::take(&mut r)?;
        r.end()?;
        Ok(reply)
    }
}

/// Fields behind `since` are on the wire from that version of the frame on; in an older one they are empty.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? } $(since $version:literal { $($later:ident),* $(,)? })*) => {
        impl Wire for $type {
            fn put(&self, w: &mut Writer) {
                $(self.$field.put(w);)*
                $(if w.version >= $version {
                    $(self.$later.put(w);)*
                })*
            }
            fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self {
                    $($field: Wire::take(r)?,)*
                    $($($later: if r.version >= $version { Wire::take(r)? } else { Default::default() },)*)*
                })
            }
        }
    };
}

fields!(Request { namespace, address, id, bundle, deadline_ms, operation });
fields!(Create { rootfs, stdio, options, checkpoint, parent_checkpoint });
fields!(Exec { exec_id, stdio, process });
fields!(Stdio { terminal, stdin, stdout, stderr, fds });
fields!(Mount { kind, source, target, options });
fields!(Event { id, exec_id, at_ns, kind });
fields!(Anomaly { class, refused, pid, comm, executable, what, count } since 3 { port_scan });
fields!(Refusal { code, message });
fields!(Created { pid, terminal, not_after_boottime_ns, policy_files, expected, cgroups, shared_pid_namespace } since 2 { traps } since 3 { scan });
fields!(Trap { nr, name, errno, args });
fields!(FileStamp { path, device, inode, size, mtime_ns, ctime_ns });
fields!(Expected { seccomp_filters, label });

macro_rules! lists {
    ($($entry:ty),*) => {$(
        impl Wire for Vec<$entry> {
            fn put(&self, w: &mut Writer) {
                put_list(self, w);
            }
            fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                take_list(r)
            }
        }
    )*};
}
lists!(String, Mount, Event, FileStamp, Trap, (String, String));

impl Wire for Vec<u8> {
    fn put(&self, w: &mut Writer) {
        put_bytes(self, w);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        take_bytes(r)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, w: &mut Writer) {
        self.0.put(w);
        self.1.put(w);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::take(r)?, B::take(r)?))
    }
}

impl Wire for [bool; 3] {
    fn put(&self, w: &mut Writer) {
        self.iter().for_each(|flag| flag.put(w));
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok([bool::take(r)?, bool::take(r)?, bool::take(r)?])
    }
}

impl Wire for Operation {
    fn put(&self, w: &mut Writer) {
        match self {
            Self::Create(create) => {
                1u8.put(w);
                create.put(w);
            }
            Self::Exec(exec) => {
                2u8.put(w);
                exec.put(w);
            }
            Self::Update { resources } => {
                3u8.put(w);
                resources.put(w);
            }
            Self::Delete { events } => {
                4u8.put(w);
                events.put(w);
            }
            Self::Record { events } => {
                5u8.put(w);
                events.put(w);
            }
        }
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(r)? {
            1 => Self::Create(Wire::take(r)?),
            2 => Self::Exec(Wire::take(r)?),
            3 => Self::Update { resources: Wire::take(r)? },
            4 => Self::Delete { events: Wire::take(r)? },
            5 => Self::Record { events: Wire::take(r)? },
            _ => return Err(DecodeError("unknown operation")),
        })
    }
}

impl Wire for EventKind {
    fn put(&self, w: &mut Writer) {
        match self {
            Self::Exited { pid, status } => {
                1u8.put(w);
                (*pid, *status).put(w);
            }
            Self::Running { pid } => {
                2u8.put(w);
                pid.put(w);
            }
            Self::Aborted { reason } => {
                3u8.put(w);
                reason.put(w);
            }
            Self::OutOfMemory => 4u8.put(w),
            Self::LogDropped { bytes } => {
                5u8.put(w);
                bytes.put(w);
            }
            Self::Anomaly(anomaly) => {
                6u8.put(w);
                anomaly.put(w);
            }
            Self::Network(seen) => {
                7u8.put(w);
                seen.put(w);
            }
        }
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(r)? {
            1 => Self::Exited { pid: Wire::take(r)?, status: Wire::take(r)? },
            2 => Self::Running { pid: Wire::take(r)? },
            3 => Self::Aborted { reason: Wire::take(r)? },
            4 => Self::OutOfMemory,
            5 => Self::LogDropped { bytes: Wire::take(r)? },
            6 => Self::Anomaly(Wire::take(r)?),
            7 => Self::Network(Wire::take(r)?),
            _ => return Err(DecodeError("unknown event")),
        })
    }
}

impl Wire for Reply {
    fn put(&self, w: &mut Writer) {
        match self {
            Self::Refused(refusal) => {
                1u8.put(w);
                refusal.put(w);
            }
            Self::Created(created) => {
                2u8.put(w);
                created.put(w);
            }
            Self::Execed { pid, traps } => {
                3u8.put(w);
                pid.put(w);
                if w.version >= 2 {
                    traps.put(w);
                }
            }
            Self::Done => 4u8.put(w),
        }
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(r)? {
            1 => Self::Refused(Wire::take(r)?),
            2 => Self::Created(Wire::take(r)?),
            3 => Self::Execed { pid: Wire::take(r)?, traps: if r.version >= 2 { Wire::take(r)? } else { Vec::new() } },
            4 => Self::Done,
            _ => return Err(DecodeError("unknown reply")),
        })
    }
}

impl Wire for Code {
    fn put(&self, w: &mut Writer) {
        (*self as u8).put(w);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(r)? {
            1 => Self::PermissionDenied,
            2 => Self::FailedPrecondition,
            3 => Self::InvalidArgument,
            4 => Self::Unavailable,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::Internal,
            _ => return Err(DecodeError("unknown code")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::wire::{FrameHeader, HEADER_LEN, MAX_FRAME, MAX_LIST, MAX_STRING, read_frame};

    fn event(kind: EventKind) -> Event {
        Event { id: "c1".into(), exec_id: "é".into(), at_ns: u64::MAX, kind }
    }

    fn stdio() -> Stdio {
        Stdio {
            terminal: true,
            stdin: "/in".into(),
            stdout: "file:///o".into(),
            stderr: String::new(),
            fds: [true, false, true],
        }
    }

    fn requests() -> Vec<Request> {
        let seen = Anomaly {
            class: Class::Listener,
            refused: false,
            pid: 5,
            comm: "nc".into(),
            executable: "/bin/nc".into(),
            what: "tcp [::]:80".into(),
            count: 1,
            port_scan: 20,
        };
        let events = vec![
            event(EventKind::Network(seen)),
            event(EventKind::Exited { pid: 1, status: 137 }),
            event(EventKind::Running { pid: 2 }),
            event(EventKind::Aborted { reason: "why".into() }),
            event(EventKind::OutOfMemory),
            event(EventKind::LogDropped { bytes: 1 << 40 }),
            event(EventKind::Anomaly(Anomaly {
                class: Class::Syscall,
                refused: true,
                pid: 4,
                comm: "sh".into(),
                executable: "/bin/sh".into(),
                what: "mount".into(),
                count: 100_000,
                port_scan: 0,
            })),
        ];
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["lowerdir=/a:/b".into(), "ro".into()],
        };
        [
            Operation::Create(Create {
                rootfs: vec![mount],
                stdio: stdio(),
                options: ("url".into(), vec![0, 255, 7]),
                checkpoint: "a".into(),
                parent_checkpoint: "b".into(),
            }),
            Operation::Exec(Exec { exec_id: "e".into(), stdio: stdio(), process: b"{}".to_vec() }),
            Operation::Update { resources: vec![1, 2, 3] },
            Operation::Delete { events: events.clone() },
            Operation::Record { events },
        ]
        .into_iter()
        .map(|operation| Request {
            namespace: "k8s.io".into(),
            address: "/run/containerd/containerd.sock".into(),
            id: "id".into(),
            bundle: "/b".into(),
            deadline_ms: 30_000,
            operation,
        })
        .collect()
    }

    fn traps() -> Vec<Trap> {
        vec![Trap { nr: 165, name: "mount".into(), errno: 1, args: 0 }]
    }

    fn replies() -> Vec<Reply> {
        let mut all = vec![Reply::Execed { pid: 9, traps: traps() }, Reply::Done];
        for code in [
            Code::PermissionDenied,
            Code::FailedPrecondition,
            Code::InvalidArgument,
            Code::Unavailable,
            Code::NotFound,
            Code::AlreadyExists,
            Code::Internal,
        ] {
            all.push(Reply::Refused(Refusal { code, message: "boltseal: denied by BS-IMG-001".into() }));
        }
        let stamp = FileStamp {
            path: "/etc/boltseal/policy.toml".into(),
            device: 1,
            inode: 2,
            size: 3,
            mtime_ns: -4,
            ctime_ns: 5,
        };
        all.push(Reply::Created(Created {
            pid: 77,
            terminal: false,
            not_after_boottime_ns: 1,
            policy_files: vec![stamp],
            expected: Expected { seccomp_filters: 2, label: "l (enforce)".into() },
            cgroups: vec![("memory".into(), "/sys/fs/cgroup/memory/x".into()), (String::new(), "/u".into())],
            shared_pid_namespace: true,
            traps: traps(),
            scan: 20,
        }));
        all
    }

    fn frames() -> Vec<Vec<u8>> {
        requests().iter().map(Request::encode).chain(replies().iter().map(Reply::encode)).collect()
    }

    #[test]
    fn every_variant_comes_back_as_it_was() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for reply in replies() {
            assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn a_reader_of_a_version_before_gets_what_it_knows() {
        for (version, reply) in [1, 2].into_iter().flat_map(|v| replies().into_iter().map(move |r| (v, r))) {
            let mut known = reply.clone();
            match &mut known {
                Reply::Created(created) => {
                    created.scan = 0;
                    created.traps.retain(|_| version > 1);
                }
                Reply::Execed { traps, .. } => traps.retain(|_| version > 1),
                _ => {}
            }
            assert_eq!(Reply::decode(&reply.encode_as(version)), Ok(known));
        }
    }

    #[test]
    fn a_frame_cut_at_any_byte_is_refused() {
        for frame in frames() {
            for cut in 0..frame.len() {
                assert!(Request::decode(&frame[..cut]).is_err() && Reply::decode(&frame[..cut]).is_err());
                // The same with a length that agrees with the cut: the body itself must not parse.
                if cut >= HEADER_LEN {
                    let mut cut_frame = frame[..cut].to_vec();
                    cut_frame[8..12].copy_from_slice(&((cut - HEADER_LEN) as u32).to_le_bytes());
                    assert!(Request::decode(&cut_frame).is_err() && Reply::decode(&cut_frame).is_err());
                }
                assert!(read_frame(&mut &frame[..cut]).is_err());
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_refused_or_means_exactly_itself() {
        for frame in frames() {
            for at in 0..frame.len() {
                for value in 0..=255 {
                    let mut bent = frame.clone();
                    bent[at] = value;
                    // What decodes must encode to the same bytes: there is one form of each value.
                    let version = u16::from_le_bytes([bent[4], bent[5]]);
                    if let Ok(request) = Request::decode(&bent) {
                        assert_eq!(request.encode_as(version), bent);
                    }
                    if let Ok(reply) = Reply::decode(&bent) {
                        assert_eq!(reply.encode_as(version), bent);
                    }
                }
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        for mut frame in frames() {
            frame.push(0);
            assert!(Request::decode(&frame).is_err() && Reply::decode(&frame).is_err());
            let len = (frame.len() - HEADER_LEN) as u32;
            frame[8..12].copy_from_slice(&len.to_le_bytes());
            assert!(Request::decode(&frame).is_err() && Reply::decode(&frame).is_err());
        }
    }

    #[test]
    fn a_length_bomb_is_refused_before_it_allocates() {
        let mut w = Writer::new(FrameKind::Request, VERSION);
        w.raw(&u32::MAX.to_le_bytes());
        assert_eq!(Request::decode(&w.finish()), Err(DecodeError("a length over its bound")));
        let mut header: [u8; HEADER_LEN] = *Reply::Done.encode().first_chunk().unwrap();
        header[8..12].copy_from_slice(&(MAX_FRAME as u32 + 1).to_le_bytes());
        assert_eq!(FrameHeader::parse(&header), Err(DecodeError("frame longer than 4 MiB")));
        assert!(read_frame(&mut header.as_slice()).is_err());

        let event = event(EventKind::OutOfMemory);
        let mut request = requests().remove(3);
        request.operation = Operation::Record { events: vec![event; MAX_LIST] };
        assert!(Request::decode(&request.encode()).is_ok());
        if let Operation::Record { events } = &mut request.operation {
            events.push(events[0].clone());
        }
        assert_eq!(Request::decode(&request.encode()), Err(DecodeError("a length over its bound")));
    }

    #[test]
    fn bounds_of_strings_and_bytes_hold() {
        let mut request = requests().remove(2);
        request.id = "x".repeat(MAX_STRING);
        assert!(Request::decode(&request.encode()).is_ok());
        request.id.push('x');
        assert!(Request::decode(&request.encode()).is_err());
        request.id.clear();
        request.operation = Operation::Update { resources: vec![0; 1 << 20] };
        assert!(Request::decode(&request.encode()).is_ok());
        request.operation = Operation::Update { resources: vec![0; (1 << 20) + 1] };
        assert!(Request::decode(&request.encode()).is_err());
    }

    #[test]
    fn other_versions_kinds_and_magic_are_refused() {
        let frame = Reply::Done.encode();
        assert!(Request::decode(&frame).is_err());
        for (at, value) in [(0, b'X'), (4, 0), (4, VERSION as u8 + 1), (5, 1), (6, 3), (6, 1)] {
            let mut bent = frame.clone();
            bent[at] = value;
            assert!(Reply::decode(&bent).is_err(), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_frame_is_read_from_a_stream_and_no_more() {
        let mut stream = Reply::Done.encode();
        stream.extend(b"next");
        let mut source = stream.as_slice();
        assert_eq!(Reply::decode(&read_frame(&mut source).unwrap()), Ok(Reply::Done));
        assert_eq!(source, b"next");
    }
}
