//! What is written is read, and what is declared opens nothing that is not granted.
use super::*;
use proptest::prelude::*;

fn ports(text: &str) -> Ports {
    Ports::try_from(text.to_owned()).unwrap()
}

fn destination(text: &str) -> Destination {
    Destination::try_from(text.to_owned()).unwrap()
}

#[test]
fn what_is_written_is_read_and_written_again() {
    for text in ["8080", "0", "8000-8010", "53/udp", "*", "*/udp", "1-65535", "65535"] {
        assert_eq!(ports(text).to_string(), text);
        // As a policy that is written has it.
        assert_eq!(String::from(ports(text)), text);
    }
    assert_eq!(ports("80/tcp").to_string(), "80");
    for text in [
        "10.0.0.0/8:443",
        "192.0.2.7:53/udp",
        "[fd00::/8]:5432",
        "[::1]:80-90",
        "*:443",
        "*:*",
        "0.0.0.0/0:*/udp",
        "[::/0]:1",
    ] {
        assert_eq!(destination(text).to_string(), text);
        assert_eq!(String::from(destination(text)), text);
    }
    assert_eq!(destination("10.1.2.3/32:1").to_string(), "10.1.2.3:1");
}

#[test]
fn what_may_be_misread_is_refused() {
    for text in [
        "",
        "x",
        "-1",
        "+1",
        "01",
        "65536",
        "80-",
        "-80",
        "90-80",
        "0-80",
        "80/",
        "80/sctp",
        "80/TCP",
        "80/udp/tcp",
        "**",
        " 80",
        "80 ",
        "1-2-3",
    ] {
        assert!(Ports::try_from(text.to_owned()).is_err(), "{text:?}");
    }
    for text in [
        "",
        "443",
        "*",
        ":443",
        "10.0.0.0/8",
        "10.0.0.1/8:443",
        "10.0.0.0/33:443",
        "10.0.0.0/08:443",
        "010.0.0.0/8:443",
        "10.0.0/8:443",
        "fd00::/8:443",
        "[fd00::/8:443",
        "fd00::/8]:443",
        "[10.0.0.0/8]:443",
        "[fd00::1/8]:443",
        "[fd00::/129]:443",
        "[::ffff:10.0.0.1]:443",
        "[::ffff:0.0.0.0/96]:443",
        "[fe80::1%eth0]:443",
        "*:0",
        "10.0.0.1:0",
        "example.com:443",
        "*:443/sctp",
        "[]:443",
        "[*]:443",
        "10.0.0.0/-1:443",
    ] {
        assert!(Destination::try_from(text.to_owned()).is_err(), "{text:?}");
    }
    let why = Destination::try_from("10.0.0.1/8:443".to_owned()).unwrap_err();
    assert!(why.contains("bits are set") && !why.contains('\n'), "{why}");
}

#[test]
fn covering() {
    for (wide, narrow, expected) in [
        ("10.0.0.0/8:*", "10.1.2.3:443", true),
        ("10.0.0.0/8:443", "10.1.2.3:443", true),
        ("10.0.0.0/8:443", "10.1.2.3:444", false),
        ("10.0.0.0/8:443", "10.1.2.3:443/udp", false),
        ("10.0.0.0/8:443", "11.1.2.3:443", false),
        ("10.1.0.0/16:443", "10.0.0.0/8:443", false),
        ("*:443", "[fd00::1]:443", true),
        ("*:443", "10.0.0.1:443", true),
        ("0.0.0.0/0:443", "*:443", false),
        ("[::/0]:443", "10.0.0.1:443", false),
        ("[::/0]:443", "[fd00::1]:443", true),
        ("[fd00::/8]:443", "[fd12:3456::1]:443", true),
        ("[fd00::/8]:443", "[fe80::1]:443", false),
        ("[fd00::/16]:443", "[fd00::/8]:443", false),
        ("0.0.0.0/0:443", "255.255.255.255:443", true),
        ("10.0.0.1:1-9", "10.0.0.1:9", true),
        ("10.0.0.1:1-9", "10.0.0.1:5-10", false),
    ] {
        assert_eq!(destination(wide).covers(&destination(narrow)), expected, "{wide} {narrow}");
    }
}

#[test]
fn an_annotation_declares_and_never_grants() {
    let declared = Open::declared("bind=8080, connect=10.1.0.0/16:443\nconnect=*:53/udp").unwrap();
    assert_eq!(declared.bind, Some(vec![ports("8080")]));
    assert_eq!(declared.connect.as_ref().map(Vec::len), Some(2));
    // Nothing granted is nothing open.
    let none = Open { bind: Some(vec![]), connect: Some(vec![]) };
    let (open, beyond) = none.narrowed(&declared);
    assert_eq!((open, beyond.len()), (none.clone(), 3));
    // Nobody confines but the pod itself.
    assert_eq!(Open::default().narrowed(&declared), (declared.clone(), vec![]));
    // An empty annotation closes everything.
    assert_eq!(Open::default().narrowed(&Open::declared("").unwrap()).0, none);
    for bad in ["8080", "bind", "bind=", "bind=x", "listen=80", "connect=443", "BIND=80", "bind:80"] {
        assert!(Open::declared(bad).is_err(), "{bad}");
    }
    assert!(Open::declared(&"bind=1,".repeat(200)).unwrap_err().contains("at most 128"));
    // The last that is taken, and the first that is not.
    assert!(Open::declared(&"bind=1,".repeat(MOST)).is_ok() && Open::declared(&"bind=1,".repeat(MOST + 1)).is_err());
    assert!(Open::declared(&" ".repeat(LONGEST)).is_ok());
    assert!(Open::declared(&" ".repeat(LONGEST + 1)).unwrap_err().contains("at most 4096"));
    assert!(Open::declared("bind=1-1024").is_ok());
    assert!(Open::declared("bind=1-1025").unwrap_err().contains("1024 TCP ports"));
    assert!(Open::declared("bind=*").is_ok() && Open::declared("bind=1-2000/udp").is_ok());
}

#[test]
fn a_containers_own_annotation_goes_before_its_pods() {
    let all = [("boltseal.dev/ports", "pod"), ("boltseal.dev/ports.web", "web"), ("boltseal.dev/ports.", "nobody")];
    let look = |all: &'static [(&str, &str)]| move |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let all: &'static [(&str, &str)] = Box::leak(Box::new(all));
    for (container, expected) in [("web", "web"), ("db", "pod"), ("", "pod")] {
        assert_eq!(named(look(all), container), Fact::Is(expected.into()));
    }
    assert_eq!(named(look(&all[1..]), "db"), Fact::Absent);
}

#[test]
fn landlock_hears_of_tcp_ports_alone() {
    let open = Open::declared("bind=80-82, bind=53/udp, bind=0, connect=10.0.0.1:443, connect=[::1]:443").unwrap();
    assert_eq!(open.bind_tcp(), Some(vec![0, 80, 81, 82]));
    assert_eq!(open.connect_tcp(), Some(vec![443]));
    assert_eq!(Open::declared("bind=80, bind=*").unwrap().bind_tcp(), None);
    assert_eq!(Open::declared("connect=*:*/udp").unwrap().connect_tcp(), Some(vec![]));
    assert_eq!(Open::default().bind_tcp(), None);
}

fn an_open() -> impl Strategy<Value = Open> {
    let port = || prop::sample::select(vec!["80", "80-90", "*", "53/udp", "0"]).prop_map(ports);
    let goal = prop::sample::select(vec!["10.0.0.0/8:443", "10.1.0.0/16:*", "*:443", "[fd00::/8]:443", "*:53/udp"])
        .prop_map(destination);
    let list = prop::option::of(prop::collection::vec(port(), 0..4));
    (list, prop::option::of(prop::collection::vec(goal, 0..4))).prop_map(|(bind, connect)| Open { bind, connect })
}

proptest! {
    /// Whatever is declared, nothing is open that is not granted.
    #[test]
    fn narrowing_never_widens(granted in an_open(), declared in an_open()) {
        let (open, beyond) = granted.narrowed(&declared);
        if let Some(granted) = &granted.bind {
            prop_assert!(open.bind.as_ref().unwrap().iter().all(|p| granted.iter().any(|g| g.covers(p))));
        }
        if let Some(granted) = &granted.connect {
            prop_assert!(open.connect.as_ref().unwrap().iter().all(|p| granted.iter().any(|g| g.covers(p))));
        }
        if granted == declared {
            prop_assert!(beyond.is_empty() && open == granted);
        }
    }

    #[test]
    fn reading_is_total(text in "[0-9a-f.:/*\\[\\]=, budpntc-]{0,60}") {
        let ports = Ports::try_from(text.clone()).map(|p| p.to_string());
        let destination = Destination::try_from(text.clone()).map(|p| p.to_string());
        for again in ports.into_iter().chain(destination) {
            prop_assert!(Ports::try_from(again.clone()).is_ok() || Destination::try_from(again).is_ok());
        }
        if let Ok(open) = Open::declared(&text) {
            prop_assert!(open.bounds().is_empty());
        }
    }
}

#[test]
fn what_tells_nothing_has_one_form() {
    for (told, flows) in [(false, false), (true, false), (false, true), (true, true)] {
        let watch = Watch { told, flows, scan: 20 };
        assert_eq!(watch.any(), told || flows);
        assert_eq!(watch.or_nothing(), if told || flows { watch } else { Watch::default() });
    }
}
