//! Which pod a container belongs to: by containerd's record and our own, never by what annotations say.
use crate::sensitivity::{self, Turn};
use crate::sys;
use boltseal_evidence::containerd::Container;
use boltseal_evidence::record::Records;
use boltseal_evidence::{namespaces, spec};
use boltseal_message::Request;
use boltseal_policy::facts::{Fact, Facts, Subject};

/// CRI's annotations: they narrow and are compared, they prove nothing.
const CRI: [(&str, &str); 4] = [
    ("io.kubernetes.cri.sandbox-id", "sandbox id"),
    ("io.kubernetes.cri.sandbox-namespace", "pod namespace"),
    ("io.kubernetes.cri.sandbox-name", "pod name"),
    ("io.kubernetes.cri.sandbox-uid", "pod uid"),
];

/// What the annotations say; containerd's record and ours have the last word.
pub(super) fn subject(request: &Request, parsed: &spec::ParsedSpec) -> Subject {
    let text = |name: &str| parsed.annotation(name).unwrap_or_default().to_owned();
    Subject {
        containerd_namespace: request.namespace.clone(),
        id: request.id.clone(),
        sandbox_id: text(CRI[0].0),
        pod_namespace: text(CRI[1].0),
        pod_name: text(CRI[2].0),
        pod_uid: text(CRI[3].0),
        container_name: text("io.kubernetes.cri.container-name"),
        ..Subject::default()
    }
}

/// Takes away what only annotations say: from here on a pod's ids are those that a record vouches for, also where the
/// disagreement itself merely warns. Otherwise a claim would make another pod's volumes look like its own.
pub(super) fn unclaim(subject: &mut Subject) -> Subject {
    let claimed = subject.clone();
    *subject = Subject {
        containerd_namespace: claimed.containerd_namespace.clone(),
        id: claimed.id.clone(),
        image_name: claimed.image_name.clone(),
        ..Subject::default()
    };
    claimed
}

/// Which pod it belongs to, by containerd's CRI metadata and our own record of the sandbox. An annotation that says
/// otherwise is a disagreement and denies.
pub(super) fn pod(request: &Request, container: &Container, records: &Result<Records, String>, facts: &mut Facts) {
    let claimed = unclaim(&mut facts.subject);
    let subject = &mut facts.subject;
    let Some(cri) = &container.cri else {
        if !claimed.sandbox_id.is_empty() || !claimed.pod_uid.is_empty() {
            subject.disagreements.push("the annotations name a pod, containerd's record does not".into());
        }
        return;
    };
    subject.is_pod = true;
    subject.sandbox_id.clone_from(&cri.sandbox_id);
    if !cri.container_name.is_empty() {
        subject.container_name.clone_from(&cri.container_name);
    }
    if let Some(pod) = &cri.pod {
        (subject.pod_namespace, subject.pod_name, subject.pod_uid) =
            (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
    } else {
        match records.as_ref().map(|all| all.get(&request.namespace, &cri.sandbox_id)) {
            Ok(Some(sandbox)) if sandbox.is_sandbox && sandbox.alive() => {
                subject.pod_namespace.clone_from(&sandbox.pod_namespace);
                subject.pod_name.clone_from(&sandbox.pod_name);
                subject.pod_uid.clone_from(&sandbox.pod_uid);
            }
            Ok(_) => subject.disagreements.push(format!("its sandbox {} does not run under boltseal", cri.sandbox_id)),
            Err(why) => subject.disagreements.push(why.clone()),
        }
    }
    let ours = [&subject.sandbox_id, &subject.pod_namespace, &subject.pod_name, &subject.pod_uid];
    let theirs = [&claimed.sandbox_id, &claimed.pod_namespace, &claimed.pod_name, &claimed.pod_uid];
    let mut lines = Vec::new();
    for ((ours, theirs), (_, what)) in ours.into_iter().zip(theirs).zip(CRI) {
        if !theirs.is_empty() && ours != theirs {
            lines.push(format!("{what}: the annotation says {theirs:?}, the record {ours:?}"));
        }
    }
    subject.disagreements.extend(lines);
}

/// What our own records say: whose each namespace is, and whether a user namespace overlaps another pod's.
pub(super) fn ours(
    request: &Request,
    netns: Option<&str>,
    records: &Result<Records, String>,
    turn: &Result<Option<Turn>, String>,
    facts: &mut Facts,
) {
    let records = match records {
        Ok(records) => records,
        Err(why) => {
            facts.subject.disagreements.push(why.clone());
            if let Some(user) = &mut facts.user_namespace {
                (user.joined, user.overlaps) = (Fact::Unknown(why.clone()), Fact::Unknown(why.clone()));
            }
            return;
        }
    };
    let subject = &facts.subject;
    let is_sandbox = subject.is_pod && subject.sandbox_id == request.id;
    let context = namespaces::NamespaceContext {
        records,
        namespace: &request.namespace,
        id: &request.id,
        sandbox_id: &subject.sandbox_id,
        is_sandbox,
        cri_netns: netns,
        // Asked for only where it can matter.
        cri_userns: netns.filter(|_| is_sandbox && facts.user_namespace.is_some()).and_then(sys::user_namespace_of),
    };
    namespaces::resolve(&mut facts.namespaces, &context);
    if let Some(user) = &mut facts.user_namespace {
        user.joined = namespaces::joined(&facts.namespaces, &context);
        user.overlaps = match sensitivity::ids_are_recorded(records, turn) {
            Ok(()) => Fact::Is(namespaces::overlaps(&user.ids, &context)),
            Err(why) => Fact::Unknown(why),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_an_annotation_does_not_outlive_the_records() {
        let mut subject = Subject {
            id: "c1".into(),
            containerd_namespace: "k8s.io".into(),
            sandbox_id: "victim".into(),
            pod_uid: "victim-uid".into(),
            pod_namespace: "prod".into(),
            pod_name: "db".into(),
            container_name: "x".into(),
            ..Subject::default()
        };
        let claimed = unclaim(&mut subject);
        assert_eq!((claimed.sandbox_id.as_str(), claimed.pod_uid.as_str()), ("victim", "victim-uid"));
        let kept = Subject { id: "c1".into(), containerd_namespace: "k8s.io".into(), ..Subject::default() };
        assert_eq!(subject, kept);
    }
}
