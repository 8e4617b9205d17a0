//! The extended attribute `security.capability`, as far as it says what a file has. Whatever it holds, the file has one.

/// Its name.
pub const NAME: &str = "security.capability";

const REVISIONS: [(u8, usize); 3] = [(1, 12), (2, 20), (3, 24)];
const EFFECTIVE: u32 = 1;

/// What it grants, for the person who reads it: `permitted 0x2000, effective`.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let word = |at: usize| -> Option<u32> {
        let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let Some(head) = word(0) else { return "malformed".into() };
    let [.., revision] = head.to_le_bytes();
    if !REVISIONS.contains(&(revision, bytes.len())) {
        return "malformed".into();
    }
    // The low half of all, then, from revision 2 on, the high half.
    let (Some(low), high) = (word(4), if revision > 1 { word(12) } else { Some(0) }) else { return "malformed".into() };
    let permitted = u64::from(high.unwrap_or_default()) << 32 | u64::from(low);
    let inheritable = u64::from(if revision > 1 { word(16).unwrap_or_default() } else { 0 }) << 32
        | u64::from(word(8).unwrap_or_default());
    let mut out = format!("permitted {permitted:#x}");
    if inheritable != 0 {
        out.push_str(&format!(", inheritable {inheritable:#x}"));
    }
    if head & EFFECTIVE != 0 {
        out.push_str(", effective");
    }
    if let (3, Some(root)) = (revision, word(20)) {
        out.push_str(&format!(", of uid {root}'s namespace"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(head: u32, words: &[u32]) -> Vec<u8> {
        std::iter::once(&head).chain(words).flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn every_revision_is_told() {
        assert_eq!(shown(&attribute(0x0100_0001, &[0x2000, 0])), "permitted 0x2000, effective");
        assert_eq!(shown(&attribute(0x0200_0001, &[0x2000, 0, 1, 0])), "permitted 0x100002000, effective");
        assert_eq!(shown(&attribute(0x0200_0000, &[0, 1, 0, 1])), "permitted 0x0, inheritable 0x100000001");
        let namespaced = attribute(0x0300_0000, &[1, 0, 0, 0, 1000]);
        assert_eq!(shown(&namespaced), "permitted 0x1, of uid 1000's namespace");
    }

    #[test]
    fn anything_else_is_malformed() {
        for bytes in
            [vec![], vec![0; 3], attribute(0x0200_0001, &[1, 2]), attribute(0x0400_0000, &[1, 2, 3, 4]), vec![0; 99]]
        {
            assert_eq!(shown(&bytes), "malformed", "{bytes:?}");
        }
    }
}
