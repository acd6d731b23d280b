//! Puts the shaders together and validates them, so that an error in one is an error of the build. Tells the Rust side
//! which shaders there are and how their structs are laid out.
//!
//! A shader is a file `wgsl/NAME.wgsl`. A line `// include: FILE` stands for `wgsl/shared/FILE.wgsl`. A line `const
//! NAME: u32 = 4u; // one of 1, 4` declares a constant that the host sets; the shader is validated with each value. On
//! the Rust side a shader is a function of its constants, which `src/stage.rs` calls.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=wgsl");
    println!("cargo::rerun-if-changed=build.rs");
    let mut shaders = String::new();
    let mut structs = BTreeMap::new();
    let mut files: Vec<_> = fs::read_dir("wgsl")?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let path = file.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| path.is_file()) else { continue };
        let source = include(&path)?;
        let constants: Vec<_> = source.lines().filter_map(constant_of).collect();
        for variant in variants(&source, &constants) {
            note_structs(&validated(name, &variant), &mut structs);
        }
        shaders += &function(name, &source, &constants);
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("shaders.rs"), shaders)?;
    fs::write(Path::new(&out).join("layout.rs"), layouts(&structs))
}

/// A shader's text with what it includes before it.
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

/// A constant that the host sets.
struct Constant<'a> {
    /// The line that declares it.
    line: &'a str,
    name: &'a str,
    values: Vec<&'a str>,
}

impl Constant<'_> {
    /// Its declaration with another value.
    fn set(&self, value: &str) -> String {
        format!("const {}: u32 = {value}u;", self.name)
    }
}

fn constant_of(line: &str) -> Option<Constant<'_>> {
    let (declared, values) = line.split_once("; // one of ")?;
    let (name, _) = declared.strip_prefix("const ")?.split_once(": u32 = ")?;
    Some(Constant { line, name, values: values.split(", ").map(str::trim).collect() })
}

/// The text as it stands, and with each value of each constant.
fn variants(source: &str, constants: &[Constant<'_>]) -> Vec<String> {
    let mut variants = vec![source.to_owned()];
    for constant in constants {
        variants.extend(constant.values.iter().map(|value| source.replace(constant.line, &constant.set(value))));
    }
    variants
}

/// A function that gives the shader's text with its constants, which are its parameters.
fn function(name: &str, source: &str, constants: &[Constant<'_>]) -> String {
    let parameter = |constant: &Constant<'_>| constant.name.to_lowercase();
    let parameters: Vec<String> = constants.iter().map(|constant| format!("{}: u32", parameter(constant))).collect();
    let mut text = format!("pub(crate) fn {name}({}) -> String {{\n", parameters.join(", "));
    let mut set = format!("{source:?}.to_owned()");
    for constant in constants {
        let (parameter, validated) = (parameter(constant), constant.values.join(" | "));
        _ = writeln!(text, "    debug_assert!(matches!({parameter}, {validated}), \"{parameter} {{{parameter}}}\");");
        let declared = constant.set(&format!("{{{parameter}}}"));
        _ = write!(set, ".replace({:?}, &format!({declared:?}))", constant.line);
    }
    text + "    " + &set + "\n}\n"
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

/// Notes the structs that lie in buffers. The compiler warns where nothing uses one's functions: its layout is
/// unchecked.
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
