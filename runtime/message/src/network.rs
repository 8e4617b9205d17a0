//! What the programs of a container's network tell (`runtime/launch/src/network`): events of one fixed form in a ring of the
//! kernel's. The programs write them and the container cannot; they are read as if it could.
use crate::wire::DecodeError;
use std::fmt;
use std::net::Ipv6Addr;

/// Length of an event, bytes.
pub const EVENT_LEN: usize = 56;
/// Room for events, each of which takes eight bytes more than its length.
pub const RING_LEN: u32 = 64 << 10;
/// Kinds of events; as many counters, of 64 bits each, say how many of a kind found no room.
pub const KINDS: usize = 5;

/// Where an event's fields are. All of them are 32 bits in the machine's order, but for the address (as an IPv6 address is sent;
/// IPv4 in its mapped form), the name (16 bytes, ended by zeros) and the time (64 bits).
#[derive(Debug, Clone, Copy)]
#[repr(i16)]
pub enum At {
    Kind = 0,
    Protocol = 4,
    Port = 8,
    Process = 12,
    Address = 16,
    Name = 32,
    Time = 48,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A connect or a datagram that was refused.
    Destination = 1,
    /// A bind that was refused.
    Bind = 2,
    /// A socket listens, or a UDP socket was given a port by name.
    Listener = 3,
    /// A socket listens on a port that is not open: nobody reaches it.
    Unreachable = 4,
    /// A connect or a datagram that was let through.
    Flow = 5,
}

impl Kind {
    pub const ALL: [Self; KINDS] = [Self::Destination, Self::Bind, Self::Listener, Self::Unreachable, Self::Flow];

    #[must_use]
    pub fn refused(self) -> bool {
        matches!(self, Self::Destination | Self::Bind | Self::Unreachable)
    }
}

/// What was tried, or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub udp: bool,
    pub port: u16,
    /// IPv4 in its mapped form. Of a listener it is its own.
    pub address: Ipv6Addr,
    /// Of the process, in the node's own pid namespace; 0: this kernel does not say.
    pub pid: u32,
    /// Name of the thread; empty where the program cannot ask for it.
    pub comm: String,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at_boot_ns: u64,
}

impl Seen {
    /// # Errors
    /// Anything but one whole event.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes: &[u8; EVENT_LEN] = bytes.try_into().map_err(|_| DecodeError("an event of another length"))?;
        let kind = word(bytes, At::Kind);
        let kind = Kind::ALL.into_iter().find(|k| *k as u32 == kind).ok_or(DecodeError("unknown kind of event"))?;
        let udp = match word(bytes, At::Protocol) {
            6 => false,
            17 => true,
            // Other kinds of sockets are refused as such, where anything is confined, and never listen.
            _ => return Err(DecodeError("an event of another protocol")),
        };
        let port = u16::try_from(word(bytes, At::Port)).map_err(|_| DecodeError("an event of no port"))?;
        let name: [u8; 16] = field(bytes, At::Name);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            kind,
            udp,
            port,
            address: Ipv6Addr::from(field::<16>(bytes, At::Address)),
            pid: word(bytes, At::Process),
            comm: String::from_utf8_lossy(name).into_owned(),
            at_boot_ns: u64::from_ne_bytes(field(bytes, At::Time)),
        })
    }
}

/// `tcp 10.0.0.1:80`, `udp [::1]:53`; of a listener too.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.udp { "udp" } else { "tcp" };
        match self.address.to_ipv4_mapped() {
            Some(address) => write!(f, "{protocol} {address}:{}", self.port),
            None => write!(f, "{protocol} [{}]:{}", self.address, self.port),
        }
    }
}

fn field<const N: usize>(bytes: &[u8; EVENT_LEN], at: At) -> [u8; N] {
    bytes.get(at as usize..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn word(bytes: &[u8; EVENT_LEN], at: At) -> u32 {
    u32::from_ne_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, protocol: u32, port: u32, address: Ipv6Addr) -> Vec<u8> {
        let mut bytes: Vec<u8> = [kind, protocol, port, 7].into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(address.octets());
        bytes.extend(*b"nc\0rest of it...");
        bytes.extend(9_u64.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_event_is_read_field_by_field() {
        let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
        let seen = Seen::decode(&event(1, 6, 443, mapped)).unwrap();
        let expected = Seen {
            kind: Kind::Destination,
            udp: false,
            port: 443,
            address: mapped,
            pid: 7,
            comm: "nc".into(),
            at_boot_ns: 9,
        };
        assert_eq!((seen.to_string().as_str(), seen), ("tcp 10.0.0.1:443", expected));
        let seen = Seen::decode(&event(3, 17, 53, "fd00::1".parse().unwrap())).unwrap();
        assert_eq!((seen.kind, seen.to_string().as_str()), (Kind::Listener, "udp [fd00::1]:53"));
    }

    #[test]
    fn what_no_program_writes_is_refused() {
        let good = event(5, 17, 65_535, Ipv6Addr::UNSPECIFIED);
        assert!(Seen::decode(&good).is_ok());
        for (kind, protocol, port) in [(0, 6, 1), (6, 6, 1), (u32::MAX, 6, 1), (1, 1, 1), (1, 132, 1), (1, 6, 65_536)] {
            assert!(
                Seen::decode(&event(kind, protocol, port, Ipv6Addr::LOCALHOST)).is_err(),
                "{kind} {protocol} {port}"
            );
        }
        for length in (0..EVENT_LEN).chain([EVENT_LEN + 1]) {
            let bytes: Vec<u8> = good.iter().copied().chain([0]).take(length).collect();
            assert!(Seen::decode(&bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn a_name_is_text_whatever_it_is() {
        let mut bytes = event(1, 6, 1, Ipv6Addr::LOCALHOST);
        bytes[At::Name as usize..At::Time as usize].fill(0xff);
        assert_eq!(Seen::decode(&bytes).unwrap().comm, "\u{fffd}".repeat(16));
    }
}
