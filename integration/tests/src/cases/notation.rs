//! Images that the Notary Project's signatures speak for, or do not.
use super::Case;
use super::image::store_anew;
use crate::node::World;
use crate::notation::{Signer, root};
use crate::policy::trust;
use crate::process::run;
use anyhow::Result;
use serde_json::json;
use std::process::Command;

/// The image, which nobody else signed, and its repository's authority.
const IMAGE: &str = "unsigned";

type Bend = fn(&mut Signer);

/// What the twin of a case in COSE is, and each fault begins with.
fn cose(signer: &mut Signer) {
    signer.cose = true;
}

/// The Notary Project's own tool signs, instead of openssl and us.
fn by_tool(signer: &mut Signer) {
    signer.tool = Some(Vec::new());
}

pub(super) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:expr, $says:expr, $bend:expr) => {
            case!($name, $says, $bend, |_| {})
        };
        ($name:expr, $says:expr, $bend:expr, $twin:expr) => {
            Case::new($name, "BS-IMG-001", $says, |world, _| signed(world, $bend))
                .image(IMAGE)
                .mend(|world, _| signed(world, $twin))
        };
    }
    vec![
        case!("notation: a leaf of another root of the same name", "none of the authority's roots", |s| s.ca = "other"),
        case!("notation: another subject than the policy trusts", "none of the authority's", |s| {
            s.subject = "/C=US/O=corp/CN=intern";
        }),
        case!("notation: a certificate for servers", "code signing excludes", |s| {
            s.usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n";
        }),
        case!("notation: a CA's certificate as a signer's", "is a CA", |s| {
            s.usage = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n";
        }),
        case!("notation: a signature past its expiry", "has expired", |s| {
            s.protected["io.cncf.notary.expiry"] = json!("2026-01-02T00:00:00Z");
            s.protected["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
        }),
        case!("notation: a critical attribute that nothing here understands", "not understood", |s| {
            s.protected["crit"] = json!(["io.cncf.notary.signingScheme", "com.example.must"]);
        }),
        case!(
            "notation in COSE: a leaf of another root",
            "none of the authority's roots",
            |s| {
                cose(s);
                s.ca = "other";
            },
            cose
        ),
        case!(
            "notation in COSE: a critical attribute that nothing here understands",
            "not understood",
            |s| {
                cose(s);
                s.protected["crit"] = json!(["io.cncf.notary.signingScheme", "com.example.must"]);
            },
            cose
        ),
        case!(
            "notation 1.3 signed, another subject than the policy trusts",
            "none of the authority's",
            |s| {
                by_tool(s);
                s.subject = "/C=US/ST=WA/O=corp/CN=intern";
            },
            by_tool
        ),
        case!(
            "notation 1.3 signed in COSE, under another root",
            "none of the authority's roots",
            |s| {
                by_tool(s);
                cose(s);
                s.ca = "other";
            },
            |s| {
                by_tool(s);
                cose(s);
            }
        ),
        case!("notation: alg of another key", "signs by PS256", |s| s.protected["alg"] = json!("ES256")),
    ]
}

/// The policy's authority of the image's repository is the root, and somebody signs; undone afterwards.
fn signed(world: &mut World, bend: Bend) -> Result<()> {
    let image = world.node.images.get(IMAGE)?.clone();
    trust("notary.pem", &root(&world.node.work, "root")?)?;
    let mut policy = world.node.policy.clone();
    let repository = &image.repository;
    policy.push("authority", toml::from_str(&format!(
        "name = \"notary\"\nformat = \"notation\"\nroots = \"notary.pem\"\nidentities = [\"O=corp, CN=ci\"]\nrepositories = [\"{repository}\"]"
    ))?)?;
    policy.push("scope", toml::from_str(&format!("repository = \"{repository}\"\nauthorities = [\"notary\"]"))?)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    store_anew(world, &image)?;
    let mut signer = Signer::default();
    bend(&mut signer);
    let layout = signer.layout(&world.node.work, &image)?;
    run(Command::new("boltseal").args(["sig", "import"]).arg(layout)).map(drop)
}
