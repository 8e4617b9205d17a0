//! What goes to the worker and comes back. Real bundles are judged in the crate `boltseal-keyless`, which has the worker.
use super::*;

const DIGEST: Digest = Digest([3; 32]);

fn certified() -> Certified<&'static str> {
    Certified { claim: "claim", key: "key".into(), verified: [Digest([1; 32]), Digest([2; 32])] }
}

fn fulcio(demands: Demands) -> Fulcio {
    Fulcio { root: b"root".to_vec(), certificates: Vec::new(), pinned: vec![Digest([4; 32]); MAX_VERIFIED], demands }
}

#[test]
fn a_question_is_read_as_it_was_asked() {
    for (log, sct) in [(false, false), (false, true), (true, false), (true, true)] {
        let demands = Demands { log, sct };
        let asked = fulcio(demands).question(&certified(), b"bundle", &DIGEST);
        let read = Question::decode(&asked).unwrap();
        assert_eq!((read.demands, read.digest), (demands, DIGEST));
        assert_eq!((&read.bundle[..], &read.root[..]), (&b"bundle"[..], &b"root"[..]));
        // What was verified comes first: of pinned chains as many as there is room for.
        assert_eq!(read.verified.len(), MAX_VERIFIED);
        assert_eq!(read.verified[..3], [Digest([1; 32]), Digest([2; 32]), Digest([4; 32])]);
        assert!(Question::decode(&[&asked[..], &[0]].concat()).is_err(), "a byte too many");
        assert!(Question::decode(&asked[..asked.len() - 1]).is_err(), "a byte too few");
    }
    let mut asked = fulcio(Demands { log: true, sct: true }).question(&certified(), b"", &DIGEST);
    let flag = asked.iter().position(|byte| *byte == 1).unwrap();
    asked[flag] = 2;
    assert_eq!(Question::decode(&asked), Err(DecodeError("not a flag")));
}

#[test]
fn an_answer_is_believed_as_it_was_given() {
    let good = Answer { identity: "a@example.org".into(), issuer: "https://issuer".into(), signed_at: 7 };
    let accepted = |answer: Result<Answer, String>| certified().accept(&Answer::encode(&answer));
    assert_eq!(accepted(Ok(good.clone())), Ok(("claim", "key".to_owned(), good.clone())));
    let why = |refused: Result<(&str, String, Answer), Reject>| match refused {
        Err(Reject::Keyless(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(accepted(Err("expired".into()))), "expired");
    // Text that a record or a terminal could take for something else.
    for odd in ["", " ", "a b", "a\nb", "\u{1b}[2J", "ä@example.org"] {
        let mended = [Answer { identity: odd.into(), ..good.clone() }, Answer { issuer: odd.into(), ..good.clone() }];
        for answer in mended {
            assert!(why(accepted(Ok(answer))).contains("not plain text"), "{odd:?}");
        }
    }
    let whole = Answer::encode(&Ok(good));
    for bad in [&[][..], &[2], &whole[..whole.len() - 1], &[&whole[..], &[0]].concat()] {
        assert!(!why(certified().accept(bad)).contains("plain text"), "{bad:?}");
    }
}
