//! What attestations say (BS-IMG-005, 006). The gate verifies that a key of the policy signed a statement, of this image and of this kind; what it
//! says is then read by a worker that has seen nothing else.
use super::{Signed, Signer, Trust};
use crate::verity;
use boltseal_policy::Fact;
use boltseal_policy::facts::{Attestation, Bom, Image, Provenance, Report, Said, Severity};
use boltseal_trust::{
    Digest, Reject, SEVERITIES, SignatureProposal, Statement, StatementKind, decode_statement, read_statement,
    verify_attestation,
};
use std::collections::BTreeMap;

impl Signed<'_> {
    /// Adds what an authority attests. It says something about an image, and is never a signature of it.
    pub(super) fn attested(
        &self,
        image: &mut Image,
        proposal: &SignatureProposal,
        file: &[u8],
        signer: &Signer,
        expected: &Digest,
    ) -> Result<(), Reject> {
        let (found, key) = match &signer.trust {
            Trust::Key(key) => (verify_attestation(proposal, key, expected)?, key.id().to_owned()),
            Trust::Keyless(keyless) => self.attested_keyless(keyless, proposal, file, expected)?,
            Trust::Roots(_) => return Ok(()),
        };
        verity::read(image, &signer.authority, &found, proposal.payload()).map_err(Reject::Statement)?;
        let statement = found.statement.to_string();
        // One key may have several names: the same bytes are read once.
        let says = match image.attestations.iter().find(|other| other.statement == statement) {
            Some(other) => other.says.clone(),
            None => self.says(&found.predicate_type, proposal.payload()),
        };
        image.attestations.push(Attestation {
            authority: signer.authority.clone(),
            key,
            predicate_type: found.predicate_type,
            digest: found.digest.to_string(),
            statement,
            says,
        });
        Ok(())
    }

    /// `statement` is signed: the digest in the fact is of exactly these bytes.
    fn says(&self, predicate_type: &str, statement: &[u8]) -> Fact<Said> {
        let Some(kind) = StatementKind::of(predicate_type).filter(|_| self.reads.contains(predicate_type)) else {
            return Fact::Absent;
        };
        // Of the author of one statement nobody takes a word about another's.
        self.jail.afresh();
        let answer = self.jail.parse(read_statement, kind.number(), statement);
        self.jail.afresh();
        match answer.map(|answer| decode_statement(&answer)) {
            Err(why) | Ok(Ok(Err(why))) => Fact::Unknown(why),
            Ok(Err(why)) => Fact::Unknown(why.to_string()),
            Ok(Ok(Ok(statement))) => Fact::Is(said(statement)),
        }
    }
}

fn said(statement: Statement) -> Said {
    match statement {
        Statement::Scan { scanner, finished, counts, found } => Said::Scan(Report {
            scanner,
            finished,
            counts: counts.into_iter().enumerate().fold(BTreeMap::new(), |mut all, (at, count)| {
                *all.entry(severity(at)).or_default() += u64::from(count);
                all
            }),
            found: found.into_iter().map(|(id, at)| (id, severity(usize::from(at)))).collect(),
        }),
        Statement::Bom { format, packages } => Said::Bom(Bom { format, packages: u64::from(packages) }),
        Statement::Provenance { builder, build_type } => Said::Provenance(Provenance { builder, build_type }),
    }
}

/// By its place in [`SEVERITIES`]; what is none of them is the unknown.
fn severity(at: usize) -> Severity {
    let known = [Severity::Negligible, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let name = SEVERITIES.get(at).copied().unwrap_or_default();
    known.into_iter().find(|severity| severity.name() == name).unwrap_or(Severity::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_have_one_name() {
        let all: Vec<_> = (0..=SEVERITIES.len()).map(|at| severity(at).name()).collect();
        assert_eq!(all, ["negligible", "low", "medium", "high", "critical", "unknown", "unknown"]);
    }
}
