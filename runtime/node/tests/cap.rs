//! kexec keeps every PCR. A boot that was capped is told from the one that kexec starts in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::{NodePolicy, NodeState, check, status};
use common::{Node, Proxy, denied, measure, passes, soon};

const OTHER: &str = "00000000-1111-2222-3333-444444444444";

fn capped(node: &Node, cap: Option<u32>) -> NodeState {
    let policy = NodePolicy { cap, ..node.policy() };
    check(node.dir.path(), &policy, &node.digest, &node.boot, soon())
}

fn forget(node: &Node) {
    std::fs::remove_file(node.file()).unwrap_or_default();
}

#[test]
fn a_kernel_that_kexec_started_is_never_attested() {
    let mut node = Node::new();
    let value = |node: &Node| node.swtpm.open().pcrs([14]).unwrap()[&14];
    assert_eq!(value(&node), [0; 32]);
    passes(&capped(&node, Some(14)));
    let after = value(&node);
    assert_ne!(after, [0; 32]);
    // The kept verdict holds; and a new one in the same boot, once, is over the capped value.
    let kept = capped(&node, Some(14));
    passes(&kept);
    assert!(!kept.fresh);
    forget(&node);
    let again = capped(&node, Some(14));
    passes(&again);
    assert!(again.fresh);
    assert_eq!(value(&node), after, "capped once");
    let policy = NodePolicy { cap: Some(14), ..node.policy() };
    assert!(status(node.dir.path(), &policy, &node.digest, &node.boot, soon()).verified);

    // kexec: another boot id, the same PCRs, the same counts of resets. Without the cap it is attested.
    let boot = std::mem::replace(&mut node.boot.boot_id, OTHER.into());
    let kexeced = capped(&node, Some(14));
    denied(&kexeced, "PCR 14 (node.cap)");
    assert!(kexeced.problems[0].contains("kexec") && kexeced.notes[0].contains("another boot"), "{kexeced:?}");
    passes(&capped(&node, None));
    forget(&node);
    denied(&capped(&node, Some(14)), "PCR 14 (node.cap)");
    // Twins: the boot that was capped, and the next one.
    node.boot.boot_id = boot;
    passes(&capped(&node, Some(14)));
    node.swtpm = node.swtpm.reboot();
    measure(&node.swtpm);
    node.boot.boot_id = OTHER.into();
    passes(&capped(&node, Some(14)));
}

#[test]
fn a_boot_that_could_not_be_capped_is_not_attested() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    proxy.change(|code, reply| {
        if code == 0x182 {
            *reply = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1];
        }
    });
    denied(&capped(&node, Some(14)), "refused PCR_Extend");
    assert!(!node.file().exists());
    passes(&capped(&node, None));
    forget(&node);
    proxy.change(|_, _| {});
    passes(&capped(&node, Some(14)));
    // A PCR that moves, is no PCR, or has accepted values cannot be the cap.
    for pcr in [0, 9, 16, 24] {
        denied(&capped(&node, Some(pcr)), "cannot be the cap");
    }
}
