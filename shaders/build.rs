//! Puts the shaders together and validates them, so that an error in one is an error of the build, and tells the Rust side how their structs
//! are laid out.
//!
//! A stage is a file `wgsl/NAME.wgsl`. Its lines `// include: FILE` stand for `wgsl/shared/FILE.wgsl`, once each, in order. A line
//! `const NAME: u32 = 4u; // one of 1, 4` declares a constant that the host may set; the stage is validated with each of the values.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=wgsl");
    println!("cargo::rerun-if-changed=build.rs");
    let mut stages = String::from(
        "/// Every stage by its name, shared files included.\npub(crate) const SOURCES: &[(&str, &str)] = &[\n",
    );
    let mut structs = BTreeMap::new();
    let mut files: Vec<_> = fs::read_dir("wgsl")?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let path = file.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| path.is_file()) else { continue };
        let source = include(&path)?;
        for variant in variants(&source) {
            note_structs(&validated(name, &variant), &mut structs);
        }
        _ = writeln!(stages, "    ({name:?}, {source:?}),");
    }
    stages.push_str("];\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("sources.rs"), stages)?;
    fs::write(Path::new(&out).join("layout.rs"), layouts(&structs))
}

/// A stage's text with what it includes before it.
fn include(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let mut whole = String::new();
    for line in text.lines() {
        match line.strip_prefix("// include: ") {
            Some(shared) => {
                let shared = format!("wgsl/shared/{shared}.wgsl");
                whole += &fs::read_to_string(&shared).map_err(|e| io::Error::other(format!("{shared}: {e}")))?;
            }
            None => _ = writeln!(whole, "{line}"),
        }
    }
    Ok(whole)
}

/// The text as it stands, and with each other value of each constant that has some.
fn variants(source: &str) -> Vec<String> {
    let mut variants = vec![source.to_owned()];
    for line in source.lines() {
        let Some((declared, values)) = line.split_once("; // one of ") else { continue };
        let Some((name, _)) = declared.split_once(" = ") else { continue };
        variants.extend(values.split(", ").map(|value| source.replace(line, &format!("{name} = {}u;", value.trim()))));
    }
    variants
}

fn validated(name: &str, source: &str) -> naga::Module {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("wgsl/{name}.wgsl\n{}", error.emit_to_string_with_path(source, name)));
    let result = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
    if let Err(error) = result {
        panic!("wgsl/{name}.wgsl\n{}", error.emit_to_string_with_path(source, name));
    }
    module
}

type Layout = (u32, Vec<(String, u32)>);

/// Notes the structs that lie in buffers. A struct's functions that the Rust side does not use are warned of: its layout is not checked then.
fn note_structs(module: &naga::Module, structs: &mut BTreeMap<String, Layout>) {
    let shared = |space| matches!(space, naga::AddressSpace::Uniform | naga::AddressSpace::Storage { .. });
    let mut types: Vec<_> =
        module.global_variables.iter().filter(|(_, v)| shared(v.space)).map(|(_, variable)| variable.ty).collect();
    while let Some(ty) = types.pop() {
        let kind = &module.types[ty];
        match &kind.inner {
            naga::TypeInner::Array { base, .. } => types.push(*base),
            naga::TypeInner::Struct { members, span } => {
                types.extend(members.iter().map(|member| member.ty));
                let name = kind.name.clone().unwrap_or_default();
                let members = members.iter().map(|m| (m.name.clone().unwrap_or_default(), m.offset)).collect();
                let layout = (*span, members);
                let before = structs.insert(name.clone(), layout.clone());
                let same = before.is_none_or(|before| before == layout);
                assert!(same, "two stages have structs {name} of different layout");
            }
            _ => {}
        }
    }
}

/// A module for each struct, with a function for its size and one for the offset of each member.
fn layouts(structs: &BTreeMap<String, Layout>) -> String {
    let mut text = String::new();
    for (name, (size, members)) in structs {
        _ = writeln!(text, "pub(crate) mod {} {{\n    pub(crate) const fn size() -> usize {{ {size} }}", snake(name));
        for (member, offset) in members {
            _ = writeln!(text, "    pub(crate) const fn {member}() -> usize {{ {offset} }}");
        }
        text.push_str("}\n");
    }
    text
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
