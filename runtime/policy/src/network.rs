//! Ports and destinations, as policy and annotation write them.
//!
//! Ports: `8080`, `8000-8010`, `53/udp`, `*`; TCP where nothing is said. A destination: `10.0.0.0/8:443`, `192.0.2.7:53/udp`,
//! `[fd00::/8]:5432`, `*:443`. IPv4 covers its IPv4-mapped form too; an IPv6 network never does.
use crate::facts::Fact;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The annotation that narrows a pod; followed by `.` and a container's name it is that container's alone.
pub const ANNOTATION: &str = "boltseal.dev/ports";
/// Most destinations, and most groups of ports, of one container: each becomes a few instructions that a connect may run.
pub const MOST: usize = 128;
/// Most single TCP ports of one list: each becomes a rule of Landlock's.
pub const MOST_PORTS: usize = 1024;
/// Landlock's TCP rights came with this ABI (Linux 6.7).
pub const TCP_RIGHTS: u32 = 4;
/// Longest annotation, bytes.
const LONGEST: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// `first` to `last`, both in it. `0` alone is "one that the kernel picks".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    pub first: u16,
    pub last: u16,
    pub protocol: Protocol,
}

impl Ports {
    /// Every port, 0 too.
    #[must_use]
    pub fn every(&self) -> bool {
        (self.first, self.last) == (0, u16::MAX)
    }

    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.first <= other.first && other.last <= self.last
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Every address of both families.
    Any,
    /// An address and how many of its bits count; the others are zero.
    V4(Ipv4Addr, u8),
    V6(Ipv6Addr, u8),
}

impl Network {
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::V4(a, n), Self::V4(b, m)) => n <= m && masked_v4(*b, *n) == *a,
            (Self::V6(a, n), Self::V6(b, m)) => n <= m && masked_v6(*b, *n) == *a,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    pub network: Network,
    pub ports: Ports,
}

impl Destination {
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.network.covers(&other.network) && self.ports.covers(&other.ports)
    }
}

fn masked_v4(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked_v6(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{:?} is no port: as 8080, 8000-8010, 53/udp or *", crate::text::show(&text));
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.split('/').next().unwrap_or_default(), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong()),
        };
        if ports == "*" {
            return Ok(Self { first: 0, last: u16::MAX, protocol });
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        // A range from 0 would say both "these" and "any that the kernel picks".
        if first > last || (first == 0 && last != 0) {
            return Err(wrong());
        }
        Ok(Self { first, last, protocol })
    }
}

/// Plain digits without a sign or leading zeros.
fn number(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown = crate::text::show(&text);
            format!("{shown:?} is no destination{why}: as 10.0.0.0/8:443, [fd00::/8]:5432 or *:53/udp")
        };
        let (host, ports) = text.rsplit_once(':').ok_or_else(|| wrong(""))?;
        let ports = Ports::try_from(ports.to_owned())?;
        if ports.last == 0 {
            return Err(wrong(" (port 0)"));
        }
        if host == "*" {
            return Ok(Self { network: Network::Any, ports });
        }
        let bracketed = host.strip_prefix('[');
        let inner = bracketed.map_or(Some(host), |rest| rest.strip_suffix(']')).ok_or_else(|| wrong(""))?;
        let (address, bits) = match inner.split_once('/') {
            Some((address, bits)) => (address, Some(number(bits).ok_or_else(|| wrong(""))?)),
            None => (inner, None),
        };
        let bits = |most: u8| bits.map_or(Some(most), |n| u8::try_from(n).ok().filter(|n| *n <= most));
        let network = match (address.parse(), bracketed.is_some()) {
            (Ok(IpAddr::V4(a)), false) => bits(32).map(|n| (Network::V4(a, n), masked_v4(a, n) == a)),
            (Ok(IpAddr::V6(a)), true) if a.to_ipv4_mapped().is_some() => return Err(wrong(" (write it as IPv4)")),
            (Ok(IpAddr::V6(a)), true) => bits(128).map(|n| (Network::V6(a, n), masked_v6(a, n) == a)),
            _ => None,
        };
        match network {
            Some((network, true)) => Ok(Self { network, ports }),
            Some((_, false)) => Err(wrong(" (bits are set behind the network's)")),
            None => Err(wrong("")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            _ if self.every() => f.write_str("*")?,
            (first, last) if first == last => write!(f, "{first}")?,
            (first, last) => write!(f, "{first}-{last}")?,
        }
        f.write_str(if self.protocol == Protocol::Udp { "/udp" } else { "" })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            Network::Any => write!(f, "*:{}", self.ports),
            Network::V4(a, 32) => write!(f, "{a}:{}", self.ports),
            Network::V4(a, n) => write!(f, "{a}/{n}:{}", self.ports),
            Network::V6(a, 128) => write!(f, "[{a}]:{}", self.ports),
            Network::V6(a, n) => write!(f, "[{a}/{n}]:{}", self.ports),
        }
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

/// What a pod declares: for this container by its name, else for all of its containers. `annotation` looks one up.
pub fn named<'a>(annotation: impl Fn(&str) -> Option<&'a str>, container: &str) -> Fact<String> {
    let own = annotation(&format!("{ANNOTATION}.{container}")).filter(|_| !container.is_empty());
    own.or_else(|| annotation(ANNOTATION)).map_or(Fact::Absent, |text| Fact::Is(text.to_owned()))
}

/// What is open: nothing else is. None: not confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Ports that may be bound.
    pub bind: Option<Vec<Ports>>,
    /// Where connections and datagrams may go.
    pub connect: Option<Vec<Destination>>,
}

impl Open {
    /// Reads the annotation: `bind=8080, connect=10.0.0.0/8:5432, connect=*:53/udp`. What it does not name is not declared.
    ///
    /// # Errors
    /// One line about the first part that is not understood.
    pub fn declared(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it has {} bytes, at most {LONGEST} are read", text.len()));
        }
        let (mut bind, mut connect) = (Vec::new(), Vec::new());
        for part in text.split([',', ' ', '\n', '\t']).filter(|p| !p.is_empty()) {
            match part.split_once('=') {
                Some(("bind", ports)) => bind.push(Ports::try_from(ports.to_owned())?),
                Some(("connect", destination)) => connect.push(Destination::try_from(destination.to_owned())?),
                _ => {
                    return Err(format!("{:?} is neither bind=PORT nor connect=ADDRESS:PORT", crate::text::show(part)));
                }
            }
        }
        let declared = Self { bind: Some(bind), connect: Some(connect) };
        declared.bounds().first().map_or(Ok(()), |why| Err(why.clone()))?;
        Ok(declared)
    }

    /// What is too much for the kernel to hold, one line each.
    #[must_use]
    pub fn bounds(&self) -> Vec<String> {
        let (bind, connect) = (self.bind.as_deref().unwrap_or_default(), self.connect.as_deref().unwrap_or_default());
        let mut out = Vec::new();
        for (what, count) in [("bind", bind.len()), ("connect", connect.len())] {
            if count > MOST {
                out.push(format!("{what}: {count} entries, at most {MOST} are taken"));
            }
        }
        let ports: Vec<Ports> = connect.iter().map(|d| d.ports).collect();
        for (what, list) in [("bind", bind), ("connect", ports.as_slice())] {
            if tcp_ports(list).is_some_and(|ports| ports.len() > MOST_PORTS) {
                out.push(format!(
                    "{what}: more than {MOST_PORTS} TCP ports; narrow the ranges, or name every port by *"
                ));
            }
        }
        out
    }

    /// What is declared and also granted. The second is what is declared beyond the grant.
    #[must_use]
    pub fn narrowed(&self, declared: &Self) -> (Self, Vec<String>) {
        let mut beyond = Vec::new();
        let bind = narrow("bind", self.bind.as_deref(), declared.bind.as_deref(), Ports::covers, &mut beyond);
        let connect =
            narrow("connect", self.connect.as_deref(), declared.connect.as_deref(), Destination::covers, &mut beyond);
        (Self { bind, connect }, beyond)
    }

    /// TCP ports that may be bound, for Landlock; None where every one may be.
    #[must_use]
    pub fn bind_tcp(&self) -> Option<Vec<u16>> {
        self.bind.as_deref().and_then(tcp_ports)
    }

    /// TCP ports that may be connected to, at whatever address.
    #[must_use]
    pub fn connect_tcp(&self) -> Option<Vec<u16>> {
        let ports: Vec<Ports> = self.connect.as_deref()?.iter().map(|d| d.ports).collect();
        tcp_ports(&ports)
    }
}

/// What the programs tell beside holding it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Listeners, and what is refused.
    pub told: bool,
    /// What is let through, too.
    pub flows: bool,
    /// Distinct refused destinations within a minute that are a port scan.
    pub scan: u32,
}

impl Watch {
    /// Something is told.
    #[must_use]
    pub fn any(&self) -> bool {
        self.told || self.flows
    }

    /// One form of telling nothing.
    #[must_use]
    pub fn or_nothing(self) -> Self {
        if self.any() { self } else { Self::default() }
    }
}

/// Neither list names more than the other's `covers` lets pass; a list that is not there covers everything.
fn narrow<T: Copy + fmt::Display>(
    what: &str,
    granted: Option<&[T]>,
    declared: Option<&[T]>,
    covers: fn(&T, &T) -> bool,
    beyond: &mut Vec<String>,
) -> Option<Vec<T>> {
    let (granted, declared) = match (granted, declared) {
        (Some(granted), Some(declared)) => (granted, declared),
        (one, other) => return one.or(other).map(<[T]>::to_vec),
    };
    let (kept, more): (Vec<T>, Vec<T>) = declared.iter().partition(|d| granted.iter().any(|g| covers(g, d)));
    beyond.extend(more.iter().map(|d| format!("{what} {d}")));
    Some(kept)
}

fn tcp_ports(list: &[Ports]) -> Option<Vec<u16>> {
    let mut all = std::collections::BTreeSet::new();
    for ports in list.iter().filter(|p| p.protocol == Protocol::Tcp) {
        if ports.every() {
            return None;
        }
        all.extend(ports.first..=ports.last);
    }
    Some(all.into_iter().collect())
}

#[cfg(test)]
mod tests;
