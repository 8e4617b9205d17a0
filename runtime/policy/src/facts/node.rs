//! The node, the policy that judges, and who asks.
use super::{Fact, Subject};
use serde::{Deserialize, Serialize};

/// The verdict on this node for this boot, re-verified for this start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `hardware` for a kernel TPM device, `software` for a socket.
    pub tpm: String,
    /// The quote verifies against the enrolled key, is of this boot and of this policy.
    pub verified: bool,
    /// Why not, one line each: signature, boot id, policy digest, PCR value, ttl ...
    pub problems: Vec<String>,
    /// PCRs whose value the node policy does not accept: (index, value seen).
    pub wrong_pcrs: Vec<(u32, String)>,
    /// For the record, judged by nobody: why the verdict that was kept was not used, or the new one not kept.
    pub notes: Vec<String>,
}

/// The policy bundle in force: `policy.toml`, `policy.d`, `trust`. That it is here says that it was read whole, from files
/// that only root may write, and is well formed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// sha256 of its files, hex.
    pub digest: String,
    /// Id (sha256 of the SubjectPublicKeyInfo, hex) of the signing key that this node pins. Absent: it pins none, so
    /// that policies need no signature here.
    pub signer: Fact<String>,
    /// Version that the pinned key signed these files as. Absent: there is no signature. Unknown: it does not count.
    pub signed: Fact<u64>,
    /// Lowest version that this node still takes. Absent: nothing keeps one.
    pub floor: Fact<u64>,
    /// Why what lies in `/etc/boltseal` is not what judges: this is the last good bundle, kept beside it.
    pub stale: Option<String>,
    /// What differs from what `boltseal-attest` measured in this boot (bundle, pinned key, programs), one line each; empty
    /// where nothing does. Absent: nothing was measured in this boot.
    pub measured: Fact<Vec<String>>,
}

/// A container that runs, by its own sealed record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// containerd namespace and id.
    pub id: String,
    /// As its permit says: a level, `*`, or empty where nobody asked when it started.
    pub sensitivity: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kexec {
    /// Both calls answer ENOSYS: not in this kernel.
    pub absent: bool,
    pub load_disabled: bool,
    /// Lockdown mode: `none`, `integrity`, `confidentiality`.
    pub lockdown: String,
}

/// What the cluster says of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerToken {
    /// It proves nothing; why.
    Refused(String),
    Bound(BoundToken),
}

/// Of whom a token speaks whose signature, issuer, audience and time hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundToken {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    pub namespace: String,
    pub pod_uid: String,
    /// The node that the pod was bound to; None: the cluster does not say.
    pub node: Option<String>,
    /// The host name of this machine.
    pub here: String,
}

impl BoundToken {
    /// Of this pod, whatever the node. What is empty is equal to nothing.
    #[must_use]
    pub fn is_of(&self, subject: &Subject) -> bool {
        !subject.pod_uid.is_empty()
            && !subject.pod_namespace.is_empty()
            && (&self.pod_uid, &self.namespace) == (&subject.pod_uid, &subject.pod_namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_the_pod_that_it_names() {
        let subject = |uid: &str, namespace: &str| Subject {
            pod_uid: uid.into(),
            pod_namespace: namespace.into(),
            ..Subject::default()
        };
        let token = |uid: &str, namespace: &str| BoundToken {
            pod_uid: uid.into(),
            namespace: namespace.into(),
            ..BoundToken::default()
        };
        assert!(token("u", "n").is_of(&subject("u", "n")));
        for (uid, namespace) in [("v", "n"), ("u", "m"), ("", "n"), ("u", "")] {
            assert!(!token("u", "n").is_of(&subject(uid, namespace)), "{uid} {namespace}");
            assert!(!token(uid, namespace).is_of(&subject("u", "n")), "{uid} {namespace}");
        }
        assert!(!token("", "n").is_of(&subject("", "n")) && !token("u", "").is_of(&subject("u", "")));
    }
}
