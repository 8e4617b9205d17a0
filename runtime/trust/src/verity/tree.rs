//! The hash tree of dm-verity, behind the data that it is of. Sources: Documentation/admin-guide/device-mapper/verity.rst of
//! the kernel, and cryptsetup's description of the on-disk format, version 1: `veritysetup` makes and verifies the same bytes.
use crate::digest::Digest;
use ring::digest::{Context, SHA256};

/// Of data and of the tree, bytes.
pub const BLOCK: u64 = 4096;
const SIZE: usize = 4096;
/// Digests in a block.
const FAN: u64 = BLOCK / 32;

/// Takes the data block by block. Holds the digests of the lowest level, 1/128 of the data.
pub struct Tree {
    salt: [u8; 32],
    salted: Context,
    lowest: Vec<u8>,
    blocks: u64,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree of {} blocks", self.blocks)
    }
}

/// What stands behind the data: a superblock, then the levels, the top one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    pub root: Digest,
    pub area: Vec<u8>,
}

/// Bytes behind `blocks` blocks of data.
#[must_use]
pub fn area(blocks: u64) -> u64 {
    let (mut level, mut all) = (blocks, 1_u64);
    while level > 1 {
        level = level.div_ceil(FAN);
        all = all.saturating_add(level);
    }
    all.saturating_mul(BLOCK)
}

impl Tree {
    #[must_use]
    pub fn new(salt: [u8; 32]) -> Self {
        let mut salted = Context::new(&SHA256);
        salted.update(&salt);
        Self { salt, salted, lowest: Vec::new(), blocks: 0 }
    }

    /// The next block of the data.
    pub fn block(&mut self, block: &[u8; SIZE]) {
        self.lowest.extend(self.hash(block));
        self.blocks += 1;
    }

    fn hash(&self, block: &[u8]) -> [u8; 32] {
        let mut context = self.salted.clone();
        context.update(block);
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// None without data.
    #[must_use]
    pub fn finish(self) -> Option<Hashed> {
        if self.blocks == 0 {
            return None;
        }
        let mut levels = Vec::new();
        let mut digests = self.lowest.clone();
        while digests.len() > 32 {
            digests.resize(digests.len().next_multiple_of(SIZE), 0);
            let above = digests.chunks_exact(SIZE).flat_map(|block| self.hash(block)).collect();
            levels.push(std::mem::replace(&mut digests, above));
        }
        let mut root = [0; 32];
        root.copy_from_slice(digests.get(..32)?);
        let mut area = self.superblock();
        levels.iter().rev().for_each(|level| area.extend(level));
        Some(Hashed { root: Digest(root), area })
    }

    /// For those who look at the blob with other tools: a start goes by what was signed and does not read it.
    fn superblock(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE);
        let block = u32::try_from(BLOCK).unwrap_or_default().to_le_bytes();
        out.extend(b"verity\0\0");
        out.extend(1_u32.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        // An id that says nothing which the salt does not.
        out.extend(self.salt.iter().take(16));
        out.extend(b"sha256");
        out.resize(out.len() + 26, 0);
        out.extend(block);
        out.extend(block);
        out.extend(self.blocks.to_le_bytes());
        out.extend(32_u16.to_le_bytes());
        out.extend([0; 6]);
        out.extend(self.salt);
        out.resize(SIZE, 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;

    /// Block n holds the byte n mod 251; root hash and digest of data and tree are those of `veritysetup format` 2.6.1 with this salt,
    /// its first half as the id, and the hash offset at the data's end.
    #[test]
    fn the_same_bytes_as_veritysetup() {
        for (blocks, root, whole) in [
            (
                1,
                "dd2661f29736b994bb4d44940a72e328d0b56887df8761a1274e7d51cc525eed",
                "8293dc7490528eaa7ab0fea10290f09237dd3e5e6c4c293068142b8d7e42e9bf",
            ),
            (
                2,
                "566b29324e44c5ef1704b1e0a46fb7d4e52f7d29acdfa35620b71e5c93ab3d22",
                "19322c1bdb102265835b300cba42e5c6da26590cd969f672c73e52ad33480a66",
            ),
            (
                128,
                "e80eab6ef027bcf3d0545a7ce3813aa4d773133efcfb2ec79e5d07165bea255b",
                "e7df35110600f1539496fa0c2531676bb7878562725af33868768aa7081ab5eb",
            ),
            (
                129,
                "9dc25b527d37c03cd1db20c64a3a3355605133b98147936afc77f8440e580546",
                "2e3fd83d1256662683b63aba79f4808478d3ab2cb2c84d6046844bd7ce8e43ea",
            ),
            (
                16385,
                "35d157821f7e47195ecfc2face27fc8a1618c0bd22c42ffc2b69a985e6478312",
                "4eed4588e6a5f6d563fd24753f2d6f1a8464f7f0386d1fb04d9aba3636cad6cb",
            ),
        ] {
            let mut tree = Tree::new([0xab; 32]);
            let mut file = Vec::new();
            for n in 0..blocks {
                let block = [u8::try_from(n % 251).unwrap(); SIZE];
                tree.block(&block);
                file.extend(block);
            }
            let hashed = tree.finish().unwrap();
            assert_eq!(hashed.root.hex(), root, "{blocks}");
            assert_eq!(hashed.area.len() as u64, area(blocks), "{blocks}");
            file.extend(hashed.area);
            assert_eq!(digest(&file).hex(), whole, "{blocks}");
        }
        assert_eq!(Tree::new([0; 32]).finish(), None);
    }
}
