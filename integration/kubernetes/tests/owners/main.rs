//! What `owner.yaml` accepts and refuses, and what `owner-stamp.yaml` writes: request by request. Each refused one is an accepted
//! one with one fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod ask;
mod rows;
mod stamped;

use admission::{Policies, Request, Spec, manifests};

pub(crate) const HOLD: &str = include_str!("../../owner.yaml");
pub(crate) const STAMP: &str = include_str!("../../owner-stamp.yaml");

#[test]
fn each_fault_is_refused_and_its_twin_is_not() {
    let policies = Policies::read(&[HOLD]).unwrap();
    let mut wrong = Vec::new();
    for (title, twin, fault, says) in rows::refused() {
        let mut request = twin.clone();
        fault(&mut request);
        let (sound, faulty) = (policies.admit(&twin), policies.admit(&request));
        if sound.as_ref() != Ok(&twin.object) || !faulty.as_ref().is_err_and(|why| why.contains(says)) {
            wrong.push(format!("{title}: {}\n  twin {sound:?}\n  fault {faulty:?}", show(&request)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_changes_nothing_of_an_owner_is_accepted() {
    let policies = Policies::read(&[HOLD]).unwrap();
    for (title, request) in rows::accepted() {
        assert_eq!(policies.admit(&request), Ok(request.object.clone()), "{title}: {}", show(&request));
    }
}

/// Each demand is needed: without it, something that must be refused is not. The same of each policy's binding.
#[test]
fn no_demand_is_idle() {
    let rows: Vec<_> = rows::refused()
        .into_iter()
        .map(|(_, mut request, fault, _)| {
            fault(&mut request);
            request
        })
        .collect();
    let refuses = |manifests| {
        let policies = Policies::of(manifests).unwrap();
        rows.iter().filter(|request| policies.admit(request).is_err()).count()
    };
    let whole = || manifests(HOLD).unwrap();
    assert_eq!(refuses(whole()), rows.len());
    let (mut demands, mut bindings) = (0, 0);
    for at in 0..whole().len() {
        match &whole()[at].spec {
            Spec::Hold(spec) => {
                for one in 0..spec.validations.len() {
                    let mut less = whole();
                    let Spec::Hold(spec) = &mut less[at].spec else { panic!() };
                    let gone = spec.validations.remove(one);
                    assert!(refuses(less) < rows.len(), "idle: {}", gone.expression);
                    demands += 1;
                }
            }
            _ => {
                let mut less = whole();
                less.remove(at);
                assert!(refuses(less) < rows.len(), "idle: document {at}");
                bindings += 1;
            }
        }
    }
    assert_eq!((demands, bindings), (7, 3));
}

/// Where no policy has a word: these cannot name an owner.
#[test]
fn other_doors_are_not_asked() {
    let policies = Policies::read(&[HOLD, STAMP]).unwrap();
    let request = ask::create("bob", "pods", "bob");
    assert!(policies.ask(&request));
    for resource in ["deployments/scale", "pods/exec", "pods/resize", "deployments/status", "configmaps"] {
        assert!(!policies.ask(&Request { resource: resource.into(), ..request.clone() }), "{resource}");
    }
    assert!(!policies.ask(&Request { operation: admission::Operation::Delete, ..request }));
}

fn show(request: &Request) -> String {
    format!("{:?} {} by {}", request.operation, request.resource, request.user)
}
