//! The registry of calls: what is refused when it is built, and tables of many rows.

use std::fs;
use std::process::Command;

use megaring_core::Opcode;
use megaring_core::gate::{self, COUNTERS, Role, TOOLS, Tool};

#[path = "../registry.rs"]
mod registry;

use registry::generate;

fn row(id: usize, name: &str) -> String {
    format!(
        "[[tool]]\nid = {id}\nname = {name:?}\nhandler = \"unary\"\noperation = \"search\"\ncounter = \"c{}\"\n\
         role = \"writer\"\nmaturity = \"stable\"\nmax_bytes = {}\ncost = \"query\"\n",
        id % 64,
        id + 1,
    )
}

fn rows(count: usize) -> String {
    // Not in their order, nor named in it.
    (0..count).rev().map(|id| row(id, &format!("service/{}", id.wrapping_mul(7919) % 10_007))).collect()
}

#[track_caller]
fn refused(registry: &str, words: &str) {
    let reason = generate(registry).unwrap_err();
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn what_no_registry_can_be_is_a_build_error() {
    assert!(generate(&row(0, "a")).is_ok());
    refused("", "0 tools");
    refused(&(row(0, "a") + &row(0, "b")), r#"id 0 is given twice: to "a" and "b""#);
    refused(&(row(0, "a") + &row(1, "a")), r#""a" stands twice, as 0 and as 1"#);
    refused(&(row(0, "a") + &row(2, "b")), "no tool with id 1");
    refused(&row(1, "a"), "no tool with id 0");
    refused(
        &row(0, "a").replace("writer", "owner"),
        "unknown variant `owner`, expected one of `reader`, `writer`, `admin`",
    );
    refused(&row(0, "a").replace("query", "dear"), "unknown variant `dear`");
    refused(&row(0, "a").replace("stable", "young"), "unknown variant `young`");
    refused(&row(0, "a").replace("unary", "binary"), "unknown variant `binary`");
    refused(&row(0, "a").replace("max_bytes = 1", "max_bytes = -1"), "max_bytes");
    refused(&row(0, "a").replace("max_bytes = 1", "max_bytes = 0"), "refuses every message");
    refused(&row(0, "a").replace("role", "roll"), "roll");
    let many =
        |count| (0..count).map(|id| row(id, &id.to_string()).replace(&format!("c{}", id % 64), &format!("d{id}")));
    assert!(generate(&many(64).collect::<String>()).is_ok());
    refused(&many(65).collect::<String>(), "65 counters; a board has 64");
}

#[test]
fn tables_of_many_rows_compile_and_are_found_by_their_id() {
    let folder = tempfile::tempdir().unwrap();
    for count in [181, 4_000] {
        let source = generate(&rows(count)).unwrap();
        let program = format!(
            "pub struct Tool {{ pub max_bytes: u64, pub opcode: u16, pub handler: u8, pub counter: u8, pub role: u8, \
             pub maturity: u8, pub cost: u8, pub reserved: u8 }}\n\
             pub enum Handler {{ Unary }}\npub enum Role {{ Reader = 1, Writer }}\npub enum Maturity {{ Stable }}\n\
             pub enum Cost {{ Read, Query }}\npub enum Opcode {{ Search = 2 }}\n\
             mod tools {{ use super::*; {source} }}\n\
             const _: () = {{ let mut id = 0; while id < {count} {{\n\
               let tool = &tools::TABLE[id];\n\
               assert!(tool.max_bytes == id as u64 + 1 && tool.opcode == 2 && tool.role == 2 && tool.cost == 1);\n\
               assert!(tools::COUNTERS.len() == 64 && (tool.counter as usize) < 64);\n\
               let (_, named) = tools::BY_NAME[id]; assert!((named as usize) < {count});\n\
               id += 1; }} }};"
        );
        let file = folder.path().join("table.rs");
        fs::write(&file, program).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let made = Command::new(rustc)
            .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "-A", "warnings", "--out-dir"])
            .arg(folder.path())
            .arg(&file)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let sorted: Vec<&str> =
            source.split("BY_NAME").nth(1).unwrap().lines().filter(|line| line.starts_with("    (")).collect();
        assert!(sorted.len() == count && sorted.is_sorted());
    }
}

#[test]
fn every_call_is_found_by_its_name_and_by_its_id() {
    for id in 0..TOOLS.len() as u16 {
        assert_eq!(gate::tool_id(gate::tool_name(id).unwrap()), Some(id));
    }
    assert_eq!((gate::tool_name(TOOLS.len() as u16), gate::tool_id("megaring.v1.Compute/Sear")), (None, None));
    let Tool { opcode, role, counter, .. } = TOOLS[usize::from(gate::tool_id("megaring.v1.Compute/Search").unwrap())];
    assert_eq!((opcode, role, COUNTERS[usize::from(counter)]), (Opcode::Search as u16, Role::Reader as u8, "search"));
}

#[test]
fn breakers_have_places_of_their_own() {
    let mut slots: Vec<usize> = gate::breakers().map(|(slot, ..)| slot).collect();
    let count = slots.len();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), count);
    assert!(slots.iter().all(|slot| *slot < 64));
}
