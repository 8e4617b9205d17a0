//! Pods that the policy itself answers for: a namespace and an image together. Neither alone is enough: a namespace is
//! whom containerd's client says, and an image may run anywhere.
use super::super::{Ctx, Identity};
use crate::facts::Image;
use crate::pattern;
use crate::policy::SystemPods;

pub(super) fn of<'a>(ctx: &Ctx<'a>) -> Option<&'a SystemPods> {
    let subject = &ctx.facts.subject;
    if !subject.is_pod || subject.pod_namespace.is_empty() {
        return None;
    }
    ctx.policy.owner.system.iter().find(|system| {
        system.namespace == subject.pod_namespace
            && ctx.facts.image.is().is_some_and(|image| is_image(ctx, image, system))
    })
}

fn is_image(ctx: &Ctx<'_>, image: &Image, system: &SystemPods) -> bool {
    match &ctx.identity {
        // Its sandbox runs the pause image that the policy pins, and nothing of the pod's.
        Identity::Pinned(_) => ctx.facts.subject.sandbox_id == ctx.facts.subject.id,
        Identity::None(_) => false,
        Identity::Signed(signed) => {
            let digest = system.digests.is_empty()
                || system.digests.iter().any(|digest| [&image.target, &image.manifest].contains(&digest));
            let authority = system.authority.is_empty()
                || signed.by.contains_key(&system.authority) && pattern::covers(&system.repository, &signed.repository);
            digest && authority && !(system.digests.is_empty() && system.authority.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::outcomes;
    use super::super::{RULE, named};
    use super::*;
    use crate::facts::{Fact, Facts};
    use crate::fixture;
    use crate::policy::Policy;

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        policy.owner.system = vec![SystemPods {
            id: "cni".into(),
            owner: "platform@corp.example".into(),
            namespace: "kube-system".into(),
            authority: "ci".into(),
            repository: "ghcr.io/corp/app".into(),
            digests: Vec::new(),
        }];
        facts.subject.pod_namespace = "kube-system".into();
        facts.owner = Fact::Absent;
        change(&mut policy, &mut facts);
        let owner = named(&policy, &facts);
        let said = outcomes(&RULE, &policy, &facts).concat();
        assert_eq!(owner.as_deref(), said.starts_with("allowed").then_some("platform@corp.example"), "{said}");
        said
    }

    #[test]
    fn a_namespace_and_an_image_together() {
        let (yes, no) = ("allowed system cni", "deny missing");
        assert_eq!(table(|_, _| {}), yes);
        assert_eq!(table(|_, f| f.subject.pod_namespace = "shop".into()), no);
        assert_eq!(table(|_, f| f.subject.is_pod = false), no);
        assert_eq!(table(|p, f| (p.owner.system[0].namespace, f.subject.pod_namespace) = Default::default()), no);
        assert_eq!(table(|p, _| p.owner.system[0].authority = "cd".into()), no);
        assert_eq!(table(|p, _| p.owner.system[0].repository = "ghcr.io/corp/other".into()), no);
        assert_eq!(table(|_, f| f.image = Fact::Absent), no);
        assert_eq!(table(|_, f| f.image = Fact::Unknown("x".into())), no);
        let unsigned = |_: &mut Policy, f: &mut Facts| {
            if let Fact::Is(image) = &mut f.image {
                image.signatures.clear();
            }
        };
        assert_eq!(table(unsigned), no);
        // Digests narrow, and alone they name an image whose signature still counts.
        let digests = |digest: &str, alone: bool| {
            let digest = digest.to_owned();
            table(move |p, f| {
                let system = &mut p.owner.system[0];
                system.digests =
                    vec![if digest.is_empty() { f.image.is().unwrap().manifest.clone() } else { digest.clone() }];
                if alone {
                    (system.authority, system.repository) = Default::default();
                }
            })
        };
        assert_eq!([digests("", false), digests("", true)], [yes, yes]);
        assert_eq!([digests(&fixture::digest('9'), false), digests(&fixture::digest('9'), true)], [no, no]);
        assert_eq!(table(|p, _| (p.owner.system[0].authority, p.owner.system[0].digests) = Default::default()), no);
        // The pause image that the policy pins runs a system pod's sandbox, and none of its containers.
        let pinned = |own: bool| {
            table(move |p, f| {
                unsigned(p, f);
                p.sandbox.digests.push(f.image.is().unwrap().manifest.clone());
                f.subject.sandbox_id = if own { f.subject.id.clone() } else { "another".into() };
            })
        };
        assert_eq!([pinned(true), pinned(false)], [yes, no]);
        // Whatever proof others are asked for.
        assert_eq!(table(|p, _| p.owner.level = "grant".into()), yes);
        assert_eq!(table(|p, _| p.owner.level = "pod-token".into()), yes);
    }
}
