//! The tree against its definition, known answers, and an implementation of somebody else.

use std::sync::Arc;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use megaring_ledger::{EMPTY_ROOT, Hash, Ledger, LedgerView, Options, node_hash, verify_consistency, verify_inclusion};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::common::{Hasty, events, filled, leaves, naive_root, open, random, records};

/// The leaves that Certificate Transparency's implementations test with, and the roots over the first so many
/// (certificate-transparency, `cpp/merkletree/merkle_tree_test.cc`).
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
/// Of those tests: index and size, from 1, and the path.
const PATHS: [(u64, u64, &[&str]); 4] = [
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        2,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];
/// Of those tests: both sizes, and the proof.
const PROOFS: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn hash(hex: &str) -> Hash {
    bytes(hex).try_into().unwrap()
}

fn known_leaves() -> Vec<Hash> {
    LEAVES.iter().map(|leaf| Sha256::new_with_prefix([0]).chain_update(bytes(leaf)).finalize().into()).collect()
}

#[test]
fn known_answers_are_taken() {
    let leaves = known_leaves();
    for (size, root) in (1..).zip(ROOTS) {
        assert_eq!(naive_root(&leaves[..size]), hash(root), "the definition that the other tests trust");
    }
    for (index, size, path) in PATHS {
        let path: Vec<Hash> = path.iter().map(|node| hash(node)).collect();
        let (leaf, root) = (&leaves[index as usize - 1], hash(ROOTS[size as usize - 1]));
        assert!(verify_inclusion(leaf, index - 1, size, &path, &root), "{index} of {size}");
    }
    for (old, new, proof) in PROOFS {
        let proof: Vec<Hash> = proof.iter().map(|node| hash(node)).collect();
        let (old_root, new_root) = (hash(ROOTS[old as usize - 1]), hash(ROOTS[new as usize - 1]));
        assert!(verify_consistency(old, &old_root, new, &new_root, &proof), "{old} to {new}");
    }
}

/// Every proof of every tree up to so many records, of one to several segments.
#[test]
fn all_proofs_of_small_trees_are_taken() {
    const SIZE: u64 = 70;
    let folder = filled(SIZE);
    let view = LedgerView::open(folder.path()).unwrap();
    let records: Vec<_> = view.read(0..SIZE).unwrap().map(Result::unwrap).collect();
    let leaves = leaves(&records);
    let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for size in 0..=SIZE {
        let root = naive_root(&leaves[..size as usize]);
        assert_eq!(view.root_at(size).unwrap(), root, "{size}");
        for index in 0..size {
            let proof = view.inclusion(index, size).unwrap();
            assert!(verify_inclusion(&leaves[index as usize], index, size, &proof, &root), "{index} of {size}");
            let theirs = other.prove_inclusion(index as usize);
            assert_eq!(theirs.as_bytes(), proof.as_flattened(), "{index} of {size}");
        }
        for old in 0..=size {
            let proof = view.consistency(old, size).unwrap();
            let old_root = naive_root(&leaves[..old as usize]);
            assert!(verify_consistency(old, &old_root, size, &root, &proof), "{old} to {size}");
            if old > 0 && old < size {
                let theirs = other.prove_consistency((size - old) as usize);
                assert_eq!(theirs.as_bytes(), proof.as_flattened(), "{old} to {size}");
            }
        }
        if let Some(record) = records.get(size as usize) {
            other.push(record.bytes().to_vec());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Appended in pieces, in segments of any size: roots by the definition, and proofs that somebody else's
    /// implementation takes.
    #[test]
    fn trees_are_as_defined(levels in 4..9_u32, pieces in prop::collection::vec(0..400_u64, 1..6), seed in 1..u64::MAX) {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { segment_levels: levels };
        let mut ledger = Ledger::open_on(folder.path(), options, Arc::new(Hasty)).unwrap();
        let mut sizes = vec![0];
        for piece in pieces {
            ledger.append(&events(ledger.size(), piece)).unwrap();
            sizes.push(ledger.size());
        }
        let leaves = leaves(&records(&ledger));
        for size in sizes {
            prop_assert_eq!(ledger.root_at(size).unwrap(), naive_root(&leaves[..size as usize]));
        }
        let (size, root, mut state) = (ledger.size(), ledger.root(), seed);
        prop_assert_eq!(root, naive_root(&leaves));
        let their_root = |root: Hash, size| RootHash::<Sha256>::new(root.into(), size);
        for _ in 0..size.min(12) {
            let (index, old) = (random(&mut state) % size, 1 + random(&mut state) % size);
            let proof = ledger.inclusion(index, size).unwrap();
            let record = ledger.read(index..index + 1).unwrap().next().unwrap().unwrap();
            let theirs = InclusionProof::<Sha256>::from_bytes(proof.concat());
            prop_assert!(their_root(root, size).verify_inclusion(&record.bytes(), index, &theirs).is_ok());
            let (proof, old_root) = (ledger.consistency(old, size).unwrap(), naive_root(&leaves[..old as usize]));
            let theirs = ConsistencyProof::<Sha256>::try_from_bytes(proof.concat()).unwrap();
            prop_assert!(their_root(root, size).verify_consistency(&their_root(old_root, old), &theirs).is_ok());
        }
    }

    /// A proof of which anything is changed is refused, as somebody else's implementation does.
    #[test]
    fn wrong_proofs_are_refused(size in 2..300_u64, seed in 1..u64::MAX) {
        let mut state = seed;
        let leaves: Vec<Hash> = (0..size).map(|_| std::array::from_fn(|_| random(&mut state) as u8)).collect();
        let root = naive_root(&leaves);
        let (index, old) = (random(&mut state) % size, 1 + random(&mut state) % (size - 1));
        let path = naive_path(index as usize, &leaves);
        let leaf = leaves[index as usize];
        prop_assert!(verify_inclusion(&leaf, index, size, &path, &root));
        let proof = naive_proof(old as usize, &leaves, true);
        let old_root = naive_root(&leaves[..old as usize]);
        prop_assert!(verify_consistency(old, &old_root, size, &root, &proof));
        let other = std::array::from_fn(|_| random(&mut state) as u8);
        prop_assert!(!verify_inclusion(&other, index, size, &path, &root));
        prop_assert!(!verify_inclusion(&leaf, index ^ 1, size, &path, &root));
        prop_assert!(!verify_inclusion(&leaf, size, size, &path, &root));
        prop_assert!(!verify_inclusion(&leaf, index, size, &path, &other));
        prop_assert!(!verify_inclusion(&leaf, index, size, &path[1..], &root));
        prop_assert!(!verify_inclusion(&leaf, index, size, &[&path[..], &[leaf]].concat(), &root));
        prop_assert!(!verify_consistency(old, &other, size, &root, &proof));
        prop_assert!(!verify_consistency(old, &old_root, size, &other, &proof));
        prop_assert!(!verify_consistency(old, &old_root, size, &root, &proof[1..]));
        prop_assert!(!verify_consistency(old, &old_root, size, &root, &[&proof[..], &[leaf]].concat()));
        prop_assert!(!verify_consistency(size, &root, old, &old_root, &proof));
        for at in 0..path.len().max(proof.len()) {
            let flip = |proof: &[Hash]| {
                let mut proof = proof.to_vec();
                if let Some(node) = proof.get_mut(at) { node[at % 32] ^= 1 << (at % 8); }
                proof
            };
            prop_assert!(at >= path.len() || !verify_inclusion(&leaf, index, size, &flip(&path), &root));
            prop_assert!(at >= proof.len() || !verify_consistency(old, &old_root, size, &root, &flip(&proof)));
        }
    }
}

/// `PATH` of RFC 6962, section 2.1.1.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    if index < left.len() {
        [naive_path(index, left), vec![naive_root(right)]].concat()
    } else {
        [naive_path(index - left.len(), right), vec![naive_root(left)]].concat()
    }
}

/// `SUBPROOF` of RFC 6962, section 2.1.2.
fn naive_proof(old: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if is_known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    if old <= left.len() {
        [naive_proof(old, left, is_known), vec![naive_root(right)]].concat()
    } else {
        [naive_proof(old - left.len(), right, false), vec![naive_root(left)]].concat()
    }
}

#[test]
fn an_empty_ledger_has_the_root_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    assert_eq!((ledger.root(), ledger.root_at(0).unwrap()), (EMPTY_ROOT, EMPTY_ROOT));
    assert!(verify_consistency(0, &EMPTY_ROOT, 0, &EMPTY_ROOT, &[]));
    let root = node_hash(&EMPTY_ROOT, &EMPTY_ROOT);
    assert!(verify_consistency(0, &EMPTY_ROOT, 2, &root, &[]));
    assert!(!verify_consistency(0, &root, 2, &root, &[]) && !verify_consistency(0, &EMPTY_ROOT, 0, &root, &[]));
    assert!(!verify_consistency(0, &EMPTY_ROOT, 2, &root, &[root]) && !verify_consistency(2, &root, 2, &root, &[root]));
}
