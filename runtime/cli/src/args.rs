//! The command line. The manual page names every word of it; a test sees to that.
use crate::node::NodeCommand;
use crate::screen::Output;
use clap::{Args as Group, Parser, Subcommand};
use std::path::PathBuf;

/// Looks at what boltseal enforces, decides and records
#[derive(Debug, Parser)]
#[command(
    name = "boltseal",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 denied or findings, 2 usage, 3 could not decide, 4 bad policy."
)]
pub(crate) struct Args {
    /// Form of the output
    #[arg(short = 'o', long, value_enum, default_value = "table", global = true)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Decide about an OCI bundle as a start would, as far as that can be had without containerd
    Check {
        /// Folder with config.json
        bundle: PathBuf,
        /// Another policy than the one in force: a file, or observe, baseline, restricted or strict for the default policy
        #[arg(long, value_name = "FILE|NAME")]
        policy: Option<String>,
    },
    /// Tell all about one rule, or list the rules
    Explain {
        /// Rule id, such as BS-IMG-001; without it, all rules are listed
        rule: Option<String>,
    },
    /// Signatures of images
    #[command(subcommand)]
    Sig(SigCommand),
    /// Images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Grants of owners
    #[command(subcommand)]
    Grant(GrantCommand),
    /// This node's TPM and its attestation
    #[command(subcommand)]
    Node(NodeCommand),
    /// The policy
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Read the audit trail
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Seccomp profiles of pods
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Make the folders that boltseal uses and bring the label of containers into this kernel
    Install,
    /// Look whether this node can enforce what boltseal promises
    Doctor,
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigCommand {
    /// Take the signatures of an OCI image layout into the node's store
    Import {
        /// The layout: a folder, or a tar or tar.gz of it
        path: PathBuf,
    },
    /// List what the node's store holds
    List,
    /// Remove the signatures of images that no containerd of this node has
    Gc {
        /// Only what nothing was added to for so long: 12h, 7d; or since a date
        #[arg(long, default_value = "7d")]
        grace: String,
        /// Socket of a containerd, once for each; by default those of containerd and k3s that are there
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<String>,
        /// Say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Show what a start would find out about an image: its layers, who signed it, what they hold, which rule refuses it
    Inspect {
        /// Name of the image, as containerd has it (ctr -n k8s.io images ls)
        name: String,
        /// Socket of containerd
        #[arg(long, value_name = "PATH", default_value = "/run/containerd/containerd.sock")]
        address: String,
        /// containerd's namespace; that of Kubernetes by default
        #[arg(long, default_value = "k8s.io")]
        namespace: String,
        /// Snapshotter that has it unpacked
        #[arg(long, default_value = "overlayfs")]
        snapshotter: String,
    },
    /// Make, at build time, an EROFS image with a dm-verity tree of every layer, and sign which is which
    Seal {
        /// The OCI image layout: a folder, to which what is made is added
        layout: PathBuf,
        /// Private key: P-256, PKCS #8 in PEM, unencrypted
        #[arg(long, value_name = "FILE", required_unless_present = "predicate", conflicts_with = "predicate")]
        key: Option<PathBuf>,
        /// Sign nothing: write each image's predicate into this folder, for `cosign attest`
        #[arg(long, value_name = "DIR")]
        predicate: Option<PathBuf>,
        /// Only the image of this manifest
        #[arg(long, value_name = "DIGEST")]
        image: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Make the claims of a grant from the workloads of a Kubernetes manifest, one line each
    Generate {
        /// The manifest: YAML of one or several documents, or JSON; - for stdin
        #[arg(short = 'f', long)]
        file: PathBuf,
        /// Namespace of manifests that name none
        #[arg(long)]
        namespace: Option<String>,
        /// Digest of an image that the manifest names without one; may be given several times
        #[arg(long, value_name = "IMAGE=DIGEST")]
        image: Vec<String>,
        /// Who signs, as the policy's authority has it
        #[arg(long)]
        issuer: String,
        /// The owner
        #[arg(long)]
        subject: String,
        /// For which cluster or node, as the policy has it; may be given several times
        #[arg(long, required = true)]
        audience: Vec<String>,
        /// How long it holds from now on
        #[arg(long, default_value = "30")]
        days: u64,
        /// How the owner signed in (RFC 8176), such as mfa; may be given several times
        #[arg(long)]
        amr: Vec<String>,
        /// At which class of authentication
        #[arg(long)]
        acr: Option<String>,
    },
    /// Sign claims, one line per grant; or add a signature to a break-glass file
    Sign {
        /// The claims, one line each; - for stdin
        file: PathBuf,
        /// Private key: P-256, P-384 or Ed25519, PKCS #8 in PEM, unencrypted
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// As a DSSE envelope, not as a JWS
        #[arg(long)]
        envelope: bool,
        /// Print the annotation to add to a pod template, as YAML
        #[arg(long, conflicts_with = "envelope")]
        annotation: bool,
        /// The file is a break-glass request, or one that others have signed: print it with this signature more
        #[arg(long, conflicts_with_all = ["envelope", "annotation"])]
        break_glass: bool,
    },
    /// Say whether a grant would count under a policy, and for which containers
    Verify {
        /// The grant; - for stdin
        file: PathBuf,
        /// Folder of the policy; by default the one in force, /etc/boltseal
        #[arg(long, value_name = "DIR")]
        policy: Option<PathBuf>,
    },
    /// Write a break-glass request: what several keys together shall let through, where, and how long
    Request {
        /// Id of a node's enrolled key (boltseal node status); may be given several times
        #[arg(long, required = true)]
        node: Vec<String>,
        /// A rule with one of its conditions; may be given several times
        #[arg(long, required = true, value_name = "RULE=CONDITION")]
        rule: Vec<String>,
        /// How long, from now on; at most 4
        #[arg(long, default_value = "4")]
        hours: u64,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Put a break-glass file in place on this node, if it counts here
    Install {
        /// The file with its signatures
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy as a start would, and whether this node can enforce it
    Lint {
        /// Folder of the policy; by default the one in force, /etc/boltseal
        dir: Option<PathBuf>,
    },
    /// Translate a containers policy.json, or image policies of Kyverno or policy-controller
    Import {
        /// The file: JSON, or YAML of Kubernetes manifests
        file: PathBuf,
        /// Make this folder, with policy.toml and trust/
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
        /// trusted_root.json of keyless signers whose CA and logs the file only names
        #[arg(long, value_name = "ROOT")]
        trusted_root: Option<PathBuf>,
    },
    /// Sign a policy, off the node: writes bundle.sig into its folder
    Sign {
        /// Folder of the policy
        dir: PathBuf,
        /// Private key: P-256, PKCS #8 in PEM, unencrypted
        #[arg(long, value_name = "FILE", required_unless_present = "public", conflicts_with = "public")]
        key: Option<PathBuf>,
        /// Public key of a private key that is elsewhere: print what is to be signed
        #[arg(long, value_name = "FILE")]
        public: Option<PathBuf>,
        /// The signature that was made elsewhere, ASN.1 DER
        #[arg(long, value_name = "FILE", requires = "public")]
        signature: Option<PathBuf>,
        /// Version; by default one above the one that bundle.sig has
        #[arg(long)]
        number: Option<u64>,
    },
    /// Pin whom this node takes policies from, and where it keeps the floor under their version
    Trust {
        /// Public key: P-256, SubjectPublicKeyInfo in PEM
        key: PathBuf,
        /// The TPM whose counter keeps the floor; by default the one that the policy names
        #[arg(long, conflicts_with = "no_floor")]
        tpm: Option<String>,
        /// Keep no floor: an older signed policy is then as good as a newer one
        #[arg(long)]
        no_floor: bool,
        /// Pin another key than before
        #[arg(long)]
        replace: bool,
    },
    /// Lint a policy, try it on what runs, and put it in force by one rename
    Apply {
        /// Folder of the policy
        dir: PathBuf,
        /// Although this node cannot enforce all of it
        #[arg(long)]
        anyway: bool,
        /// Lint and try it only
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List records, oldest first; with -o json one JSON object per line
    List(Filters),
    /// Follow the hash chain and report what does not fit
    Verify {
        /// A head that an earlier verify printed: the trail must still hold that record
        #[arg(long, value_name = "SEQ:SUM")]
        head: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Say what of a profile is unknown here, without effect, or could be left out
    Lint {
        /// OCI seccomp profile, JSON
        file: PathBuf,
    },
    /// Compare what two profiles mean, call by call
    Diff {
        /// OCI seccomp profile, JSON; or base, the filter that every container gets
        old: String,
        /// The same
        new: String,
    },
    /// Watch a run of a workload outside of boltseal, and print the smallest profile and the ports that it used
    Learn {
        /// Socket to listen at, absolute: a runtime hands the filter's listener to it
        socket: PathBuf,
        /// Write the profile for that run here, a new file: the base filter, notifying that socket
        #[arg(long, value_name = "FILE")]
        profile: Option<PathBuf>,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Filters {
    /// Not before: 15m, 1h, 7d, or a date or time in UTC (2026-01-31, 2026-01-31T12:00:00Z)
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Only refusals
    #[arg(long)]
    pub(crate) denied: bool,
    /// Only records where this rule did not simply pass
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// Only this owner's
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Only images whose name, repository or digest contains this
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// The record with this id and those that belong to it
    #[arg(long)]
    pub(crate) id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    const PAGE: &str = include_str!("../../../integration/man/boltseal.1.md");

    /// Every command by its full name, every option by its long and short form, and nothing that is not there.
    #[test]
    fn the_manual_page_names_all_of_it() {
        let mut options = Vec::new();
        walk(&Args::command(), "boltseal", &mut options);
        for word in PAGE
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(|w| w.starts_with("--") && !w.trim_start_matches('-').is_empty())
        {
            let other_tool = ["--all"].contains(&word);
            assert!(other_tool || options.iter().any(|o| o == word), "the page names {word}, which is no option");
        }
    }

    fn walk(command: &clap::Command, name: &str, options: &mut Vec<String>) {
        let mut command = command.clone();
        command.build();
        for argument in command.get_arguments() {
            for form in [argument.get_long().map(|l| format!("--{l}")), argument.get_short().map(|s| format!("-{s}"))]
                .into_iter()
                .flatten()
            {
                assert!(PAGE.contains(&format!("`{form}`")), "{name} {form} is not on the page");
                options.push(form);
            }
        }
        let mut leaf = true;
        for sub in command.get_subcommands() {
            leaf = false;
            walk(sub, &format!("{name} {}", sub.get_name()), options);
        }
        assert!(!leaf || PAGE.contains(&format!("**{name}**")), "{name} is not on the page");
        assert!(command.get_about().is_some(), "{name} says nothing of itself");
    }
}
