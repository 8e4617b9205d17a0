//! Seeds of the node's targets, by hand: TCG PC Client Platform Firmware Profile 1.06, section 10.
use crate::seeds::put;
use boltseal_node::log::propose;
use std::io;

const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

pub(crate) fn write() -> io::Result<()> {
    let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend([37, 0, 0, 0]);
    log.extend(b"Spec ID Event03\0");
    log.extend([0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 4, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
    event(&mut log, 0, 3, [0; 32], b"StartupLocality\0\x03");
    let secure_boot = variable("SecureBoot", &[1]);
    event(&mut log, 7, 0x8000_0001, digest(&secure_boot), &secure_boot);
    event(
        &mut log,
        4,
        0x8000_0007,
        digest(b"Calling EFI Application from Boot Option"),
        b"Calling EFI Application from Boot Option",
    );
    event(&mut log, 7, 4, digest(&[0; 4]), &[0; 4]);
    let authority = variable("db", &[&[7; 16][..], &[0x30, 0x82, 1, 2, 3]].concat());
    event(&mut log, 7, 0x8000_00e0, digest(&authority), &authority);
    event(&mut log, 4, 0x8000_0003, [0x44; 32], b"image");
    event(&mut log, 8, 13, digest(b"/vmlinuz ro"), b"kernel_cmdline: /vmlinuz ro\0");
    event(&mut log, 9, 6, [0x55; 32], b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0");
    event(&mut log, 9, 6, [0x99; 32], b"\x8f\0\0\0\x0d\0\0\0Linux initrd\0");
    put("node_log", "boot", &log)?;
    let mut answer = propose(&log);
    answer.truncate(1 + 48 * 6);
    put("node_log_answer", "events", &answer)?;
    put("node_log_answer", "error", &propose(&log[..100]))?;
    let fixture = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/trust/tests/fixtures/jws");
        std::fs::read(std::path::Path::new(folder).join(name))
    };
    for name in ["rs256", "ps256"] {
        put("trust_token", name, &fixture(&format!("{name}.jwt"))?)?;
        put("trust_jwks", name, &fixture(&format!("{name}.jwks"))?)?;
    }
    let (hash, zero) = ("ab".repeat(32), "00".repeat(32));
    let pcrs = format!("\"pcrs\":{{\"7\":\"{hash}\"}}");
    for (name, text) in [
        (
            "request",
            format!(
                r#"{{"version":1,"node":"n","ak_spki_pem":"x","ek_certificates":["AAAA"],{pcrs},"nonce":"{zero}","attest":"AAAA","signature":"AAAA"}}"#
            ),
        ),
        (
            "approval",
            r#"{"version":1,"node":"n","ak_name":"000b","endorsement_key":"p256","credential":"AAAA","secret":"AAAA"}"#
                .into(),
        ),
        (
            "pending",
            format!(
                r#"{{"version":1,"node":"n","ak_spki_pem":"x","ak_name":"000b","ek_certificate":"{hash}",{pcrs},"expects":"{zero}"}}"#
            ),
        ),
        ("proof", format!(r#"{{"version":1,"node":"n","ak_name":"000b","proof":"{zero}"}}"#)),
    ] {
        put("node_enrolment", name, text.as_bytes())?;
    }
    let frame = |sessions: bool, body: &[u8]| {
        let size = u32::try_from(10 + body.len()).unwrap_or(0);
        [&[0x80, 1 + u8::from(sessions)][..], &size.to_be_bytes(), &[0; 4], body].concat()
    };
    let password = [0, 0, 1, 0, 0];
    let policy = [&[0, 2, 7, 7][..], &[1, 0, 0]].concat();
    put("node_answer", "plain", &frame(false, &[0x80, 0, 0, 1, 0, 2, 9, 9]))?;
    put("node_answer", "password", &frame(true, &[&[0, 0, 0, 2, 9, 9][..], &password].concat()))?;
    put("node_answer", "policy", &frame(true, &[&[0, 0, 0, 2, 9, 9][..], &policy].concat()))?;
    put("node_answer", "both", &frame(true, &[&[0, 0, 0, 2, 9, 9][..], &password, &policy].concat()))?;
    put("node_command_line", "line", b"root=/dev/vda1 ro x=\"a b\" -- init=/x")
}

fn event(log: &mut Vec<u8>, pcr: u32, kind: u32, value: [u8; 32], data: &[u8]) {
    for number in [pcr, kind, 2] {
        log.extend(number.to_le_bytes());
    }
    log.extend([4, 0]);
    log.extend([0x11; 20]);
    log.extend([0x0b, 0]);
    log.extend(value);
    log.extend(u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
    log.extend(data);
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = GLOBAL.to_vec();
    out.extend((name.len() as u64).to_le_bytes());
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    out.extend(value);
    out
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    boltseal_trust::digest(bytes).0
}
