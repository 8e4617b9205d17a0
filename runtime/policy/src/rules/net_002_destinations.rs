//! BS-NET-002: connections and datagrams go only to granted addresses and ports. What is not granted is refused at run time, by
//! programs on the container's cgroup that the kernel asks at every connect, every datagram with an address and every bind.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::policy::Level;
use crate::text;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-NET-002",
    title: "Destinations are only the granted addresses and ports, UDP included",
    nist: "4.4.2",
    from: Level::Strict,
    misfit: "seal; refused at run time",
    doors: CREATE,
    reads: "ports, network_hooks, process.capabilities, policy scope.connect, policy scope.bind",
    predicate: "what may be reached is what the image's scope names in connect, narrowed to what the annotation boltseal.dev/ports \
        declares; UDP ports are bound as bind says. A connect that the scope does not name is empty where this rule is enforced, \
        and else does not confine. Programs on the container's cgroup (cgroup v2) hold it, for execs too: sockets of TCP and \
        UDP only, no source routes. CAP_NET_ADMIN does not stay beside it: it changes where packets go. Holds without a look where \
        nobody confines.",
    fix: "grant the destination in the scope's connect, as 10.0.0.0/8:443",
    conditions: &[
        ("net-admin", "CAP_NET_ADMIN stays, which can send packets elsewhere than they are addressed to"),
        ("no-hooks", "this node has no cgroup v2 to attach programs to"),
        ("destinations", "sealed: only these destinations are open"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    if let crate::Fact::Unknown(why) = &ctx.facts.ports {
        return vec![RULE.unknown("what the pod declares", why)];
    }
    let open = super::granted_network(ctx);
    let Some(connect) = &open.connect else {
        return vec![RULE.pass("neither policy nor pod confines destinations")];
    };
    let mut out: Vec<Finding> = super::net_001_ports::hooks(ctx, &RULE).into_iter().collect();
    if super::kept_capabilities(ctx).contains("CAP_NET_ADMIN") {
        out.push(RULE.deny_fix(
            "net-admin",
            "CAP_NET_ADMIN stays, and with it routes, tunnels and address translation",
            "take the capability, or the scope's connect, away",
        ));
    }
    if out.is_empty() {
        let shown = match connect.is_empty() {
            true => "no destination".into(),
            false => text::list(connect.iter().map(ToString::to_string)),
        };
        out.push(RULE.sealed("destinations", format!("reaches {shown}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Capabilities, Fact};
    use crate::network::Destination;
    use crate::{Facts, Policy, fixture};

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    fn connect(policy: &mut Policy, list: &[&str]) {
        let goal = |d: &&str| Destination::try_from((*d).to_owned()).unwrap();
        policy.scopes[0].connect = Some(list.iter().map(goal).collect());
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_, _| {}), "pass");
        assert_eq!(table(|p, _| p.level = Level::Strict), "seal destinations");
        assert_eq!(table(|p, _| connect(p, &["10.0.0.0/8:443"])), "seal destinations");
        assert_eq!(table(|_, f| f.ports = Fact::Is("bind=80".into())), "seal destinations");
        // Ports alone are the other rule's.
        assert_eq!(table(|p, _| p.scopes[0].bind = Some(vec![])), "pass");
        assert_eq!(table(|_, f| f.ports = Fact::Unknown("x".into())), "deny unknown");
    }

    #[test]
    fn what_the_node_cannot_hold_denies_where_somebody_confines() {
        assert_eq!(table(|_, f| f.network_hooks = Fact::Absent), "pass");
        for (fact, expected) in [
            (Fact::Absent, "deny no-hooks"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout: x".into()), "deny timeout"),
        ] {
            let found = table(|p, f| {
                connect(p, &["*:443"]);
                f.network_hooks = fact.clone();
            });
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn who_may_move_packets_is_not_confined_by_addresses() {
        let admin = |p: &mut Policy, f: &mut Facts| {
            p.allowances = vec![fixture::allowance()];
            let sets = Capabilities { bounding: fixture::set(&["CAP_NET_ADMIN"]), ..Default::default() };
            f.process.capabilities = Some(sets);
        };
        assert_eq!(table(admin), "pass");
        let confined = |p: &mut Policy, f: &mut Facts| {
            admin(p, f);
            connect(p, &["*:443"]);
        };
        assert_eq!(table(confined), "deny net-admin");
        // Asked for and dropped is not there.
        assert_eq!(
            table(|p, f| {
                confined(p, f);
                p.allowances.clear();
                f.process.capabilities =
                    Some(Capabilities { bounding: fixture::set(&["CAP_CHOWN"]), ..Default::default() });
            }),
            "seal destinations"
        );
    }

    #[test]
    fn what_is_open_is_told() {
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        let fact = |policy: &Policy| (RULE.check)(&Ctx::new(policy, &facts))[0].fact.clone();
        connect(&mut policy, &["10.0.0.0/8:443", "[fd00::/8]:53/udp"]);
        assert_eq!(fact(&policy), "reaches 10.0.0.0/8:443, [fd00::/8]:53/udp");
        connect(&mut policy, &[]);
        assert_eq!(fact(&policy), "reaches no destination");
    }
}
