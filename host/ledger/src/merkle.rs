//! The hashes of the Merkle tree (RFC 6962, section 2.1), and the checks of its proofs (RFC 9162, section 2.1).
//!
//! SHA-256 waits for itself: each round needs the one before. Where there are several messages of one length, four go
//! side by side, block by block, so that a processor with instructions for SHA-256 works on the next while it waits for
//! one; that takes a quarter off.

use sha2::block_api::compress256;

use crate::record::{RECORD_BYTES, Record};

/// The hash of a leaf, of a node or of a whole tree: SHA-256.
pub type Hash = [u8; 32];

/// The root of a tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Whether `proof` shows that the leaf with the hash `leaf` is the one with `index` in the tree of `size` leaves with
/// `root`: the algorithm of RFC 9162, section 2.1.3.2.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `old` leaves with `old_root` is what the tree of `new` leaves with `new_root`
/// began with: the algorithm of RFC 9162, section 2.1.4.2. Every tree began with none; that takes no proof.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old == new {
        let expected = if old == 0 { &EMPTY_ROOT } else { new_root };
        return proof.is_empty() && old <= new && old_root == expected && (new > 0 || new_root == &EMPTY_ROOT);
    }
    // A tree that is perfect is itself a node of the new one, which its proof leaves out.
    let (first, rest) = match proof {
        [_, ..] if old.is_power_of_two() => (old_root, proof),
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    if old > new {
        return false;
    }
    let shift = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// The hash of the leaf that a record's bytes are: SHA-256 of 0x00 and the bytes.
#[must_use]
pub fn leaf_hash(record: &[u8; RECORD_BYTES]) -> Hash {
    let [hash] = sha256([leaf_message(record)]);
    hash
}

/// The hash of the node over two: SHA-256 of 0x01 and both.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let [hash] = sha256([node_message(left, right)]);
    hash
}

/// [`leaf_hash`] of each.
pub(crate) fn leaf_hashes(records: &[Record]) -> Vec<Hash> {
    let mut hashes = Vec::with_capacity(records.len());
    let (fours, rest) = records.as_chunks::<LANES>();
    for four in fours {
        hashes.extend(sha256(four.each_ref().map(|record| leaf_message(record.bytes()))));
    }
    hashes.extend(rest.iter().map(Record::leaf_hash));
    hashes
}

/// [`node_hash`] of each pair; one without another is left out.
pub(crate) fn parents(hashes: &[Hash]) -> Vec<Hash> {
    let (pairs, _) = hashes.as_chunks::<2>();
    let mut parents = Vec::with_capacity(pairs.len());
    let (fours, rest) = pairs.as_chunks::<LANES>();
    for four in fours {
        parents.extend(sha256(four.each_ref().map(|[left, right]| node_message(left, right))));
    }
    parents.extend(rest.iter().map(|[left, right]| node_hash(left, right)));
    parents
}

/// Messages that are hashed side by side: more gain nothing.
const LANES: usize = 4;

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

type Block = [u8; 64];

/// SHA-256's initial hash value (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

fn leaf_message(record: &[u8; RECORD_BYTES]) -> [Block; 3] {
    padded(|message| {
        message[0] = LEAF_PREFIX;
        message[1..=RECORD_BYTES].copy_from_slice(record);
        1 + RECORD_BYTES
    })
}

fn node_message(left: &Hash, right: &Hash) -> [Block; 2] {
    padded(|message| {
        message[0] = NODE_PREFIX;
        message[1..33].copy_from_slice(left);
        message[33..65].copy_from_slice(right);
        65
    })
}

/// A message with the padding of FIPS 180-4, section 5.1.1; `fill` writes it and says how long it is.
fn padded<const BLOCKS: usize>(fill: impl FnOnce(&mut [u8]) -> usize) -> [Block; BLOCKS] {
    let mut blocks = [[0; 64]; BLOCKS];
    let bytes = blocks.as_flattened_mut();
    let len = fill(bytes);
    bytes[len] = 0x80;
    let (_, bits) = bytes.split_at_mut(64 * BLOCKS - 8);
    bits.copy_from_slice(&(8 * len as u64).to_be_bytes());
    blocks
}

/// SHA-256 of each padded message.
fn sha256<const BLOCKS: usize, const N: usize>(messages: [[Block; BLOCKS]; N]) -> [Hash; N] {
    let mut states = [INITIAL; N];
    for block in 0..BLOCKS {
        for (state, message) in states.iter_mut().zip(&messages) {
            compress256(state, &message[block..=block]);
        }
    }
    states.map(|state| bytemuck::cast(state.map(u32::to_be)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn plain(prefix: u8, parts: &[&[u8]]) -> Hash {
        let mut sha = Sha256::new_with_prefix([prefix]);
        parts.iter().for_each(|part| sha.update(part));
        sha.finalize().into()
    }

    #[test]
    fn nothing_has_the_hash_of_nothing() {
        assert_eq!(EMPTY_ROOT, <Hash>::from(Sha256::digest([])));
    }

    proptest! {
        #[test]
        fn hashes_are_those_of_sha_256(bytes in prop::collection::vec(any::<[u8; RECORD_BYTES]>(), 0..11)) {
            let records: Vec<Record> = bytes.iter().map(Record::from_bytes).collect();
            let leaves: Vec<Hash> = bytes.iter().map(|bytes| plain(0, &[bytes])).collect();
            prop_assert_eq!(&leaf_hashes(&records), &leaves);
            let nodes: Vec<Hash> = leaves.as_chunks::<2>().0.iter().map(|[a, b]| plain(1, &[a, b])).collect();
            prop_assert_eq!(parents(&leaves), nodes);
        }
    }
}
