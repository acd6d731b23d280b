//! What leaves the copies of the kernels: one symbol each. Code for one instruction set can never stand in for
//! another's.

use std::path::Path;

use megaring_simd::{Isa, KernelSet};
use object::read::archive::ArchiveFile;
use object::{Object, ObjectSymbol};

/// What a compiler may call without being asked; every Rust program has them.
const COMPILER_CALLS: [&str; 4] = ["memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"];

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads ELF archives")]
fn every_copy_exports_its_table_and_nothing_else() {
    let isas = Isa::ALL.into_iter().filter(|isa| (*isa == Isa::Neon) == cfg!(target_arch = "aarch64"));
    let more = cfg!(target_arch = "x86_64").then_some("avx512popcnt");
    let mut copies = 0;
    for isa in isas.map(Isa::name).chain(more) {
        let path = Path::new(env!("MEGARING_SIMD_LIBRARIES")).join(format!("libmegaring_simd_{isa}.a"));
        let archive = std::fs::read(&path).expect("the build script made the library");
        let (mut global, mut undefined) = (Vec::new(), Vec::new());
        for member in ArchiveFile::parse(&*archive).expect("an archive").members() {
            let data = member.expect("a member").data(&*archive).expect("its bytes");
            let file = object::File::parse(data).expect("an object file");
            for symbol in file.symbols() {
                let name = symbol.name().expect("a name").to_owned();
                if symbol.is_undefined() && !name.is_empty() {
                    undefined.push(name);
                } else if symbol.is_global() {
                    global.push(name);
                }
            }
        }
        let [table] = &global[..] else { panic!("{isa} exports {global:?}") };
        assert!(table.starts_with(&format!("megaring_simd_{isa}_")), "{table}");
        let foreign: Vec<_> = undefined.iter().filter(|name| !COMPILER_CALLS.contains(&name.as_str())).collect();
        assert!(foreign.is_empty(), "{isa} calls {foreign:?}");
        copies += 1;
    }
    assert!(copies >= KernelSet::copies().len());
}
