//! What cargo says in its JSON lines (`--message-format=json`), as far as xtask asks: read without a parser, since
//! cargo writes each message compactly on a line of its own.

use std::path::PathBuf;

/// Where cargo put the program of that name; it knows of target folders that no environment variable tells.
pub(crate) fn executable(program: &str, messages: &str) -> Option<PathBuf> {
    let is_it = |line: &&str| {
        let name = string_behind(line, "\"name\":");
        line.contains("\"kind\":[\"bin\"]") && !is_of_tests(line) && name.as_deref() == Some(program)
    };
    built(messages.lines().find(is_it)?)
}

fn built(line: &str) -> Option<PathBuf> {
    string_behind(line, "\"executable\":").map(PathBuf::from)
}

/// Whether a line tells of something that was built with its tests.
fn is_of_tests(line: &str) -> bool {
    let profile = line.split_once("\"profile\":{").and_then(|(_, behind)| behind.split_once('}'));
    profile.is_some_and(|(profile, _)| profile.contains("\"test\":true"))
}

/// What the build script of one package left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BuildScript {
    /// Its OUT_DIR.
    pub(crate) folder: PathBuf,
    /// The message.
    line: String,
}

impl BuildScript {
    /// The one of `package`, whose folder has another name than itself.
    pub(crate) fn of(package: &str, messages: &str) -> Option<Self> {
        let id = format!("#{package}@");
        let is_it = |line: &&str| line.contains("\"reason\":\"build-script-executed\"") && line.contains(&id);
        let line = messages.lines().rfind(is_it)?;
        Some(Self { folder: string_behind(line, "\"out_dir\":")?.into(), line: line.to_owned() })
    }

    /// The environment variable that it set for the package.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        string_behind(&self.line, &format!("[\"{name}\","))
    }
}

/// A program of tests: the unit tests of a library or of a program, or those of one file or folder in `tests/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// Whose it is.
    pub(crate) package: String,
    /// Cargo's name of what is tested.
    pub(crate) target: String,
    /// Whether `target` is the package's library.
    pub(crate) is_library: bool,
    /// Where the package lies, which is where cargo starts its tests.
    pub(crate) folder: PathBuf,
    /// Where cargo put it.
    pub(crate) program: PathBuf,
}

/// The programs of tests that were built, of packages whose folders have other names than themselves.
pub(crate) fn test_programs(messages: &str) -> Vec<TestProgram> {
    messages.lines().filter_map(test_program).collect()
}

fn test_program(line: &str) -> Option<TestProgram> {
    if !is_of_tests(line) {
        return None;
    }
    let id = string_behind(line, "\"package_id\":")?;
    let (package, _) = id.rsplit_once('#')?.1.split_once('@')?;
    let mut folder = PathBuf::from(string_behind(line, "\"manifest_path\":")?);
    folder.pop();
    Some(TestProgram {
        package: package.to_owned(),
        target: string_behind(line, "\"name\":")?,
        is_library: line.contains("\"kind\":[\"lib\"]"),
        folder,
        program: built(line)?,
    })
}

/// The string that follows the last `key` which a string follows.
fn string_behind(text: &str, key: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once(&format!("{key}\""))?;
    let (mut string, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => return Some(string),
            '\\' => string.push(characters.next()?),
            character => string.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"megaring"},"profile":{"test":false},"executable":null,"fresh":true}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"xtask"},"profile":{"test":false},"executable":"/t/xtask","fresh":true}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"megaring"},"profile":{"test":true},"executable":"/t/megaring-1","fresh":true}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"megaring"},"profile":{"test":false},"executable":"C:\\t\\release\\mega \"ring\".exe","fresh":true}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable("megaring", messages), Some(PathBuf::from(r#"C:\t\release\mega "ring".exe"#)));
        assert_eq!(executable("ring", messages), None);
        let unfinished = r#"{"target":{"kind":["bin"],"name":"megaring"},"profile":{"test":false},"executable":"unfi"#;
        assert_eq!(executable("megaring", unfinished), None);
    }

    #[test]
    fn what_a_build_script_left_is_read() {
        let messages = r#"{"reason":"build-script-executed","package_id":"path+file:///a-b/c#a-b@0.1.0","linked_libs":[],"cfgs":[],"env":[["WHY","run \"it\""],["NOT",""]],"out_dir":"/t/build/a-b-1/out"}
{"reason":"build-script-executed","package_id":"path+file:///a-b/d#d@0.1.0","env":[],"out_dir":"/t/build/d-1/out"}
{"reason":"compiler-artifact","package_id":"path+file:///a-b/c#a-b@0.1.0","executable":null}"#;
        let script = BuildScript::of("a-b", messages).expect("it has run");
        assert_eq!(script.folder, PathBuf::from("/t/build/a-b-1/out"));
        assert_eq!(script.variable("WHY").as_deref(), Some("run \"it\""));
        assert_eq!(script.variable("NOT").as_deref(), Some(""));
        assert_eq!(script.variable("OTHER"), None);
        assert_eq!(BuildScript::of("b", messages), None);
    }

    #[test]
    fn programs_of_tests_are_read() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"registry+https://a/b#c@1.0.0","manifest_path":"/c/Cargo.toml","target":{"kind":["lib"],"crate_types":["lib"],"name":"c","test":true},"profile":{"opt_level":"0","test":false},"features":[],"executable":null,"fresh":true}
{"reason":"compiler-artifact","package_id":"path+file:///w/host/ring#megaring-ring@0.1.0","manifest_path":"/w/host/ring/Cargo.toml","target":{"kind":["lib"],"crate_types":["lib"],"name":"megaring_ring","test":true},"profile":{"opt_level":"1","test":true},"features":[],"executable":"/t/ring-1","fresh":true}
{"reason":"compiler-artifact","package_id":"path+file:///w/host/service#megaring@0.1.0","manifest_path":"/w/host/service/Cargo.toml","target":{"kind":["bin"],"crate_types":["bin"],"name":"megaring","test":true},"profile":{"opt_level":"1","test":false},"features":[],"executable":"/t/megaring","fresh":true}
{"reason":"compiler-artifact","package_id":"path+file:///w/host/service#megaring@0.1.0","manifest_path":"/w/host/service/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"cli","test":true},"profile":{"opt_level":"1","test":true},"features":[],"executable":"/t/cli-1","fresh":true}
{"reason":"build-finished","success":true}"#;
        let program = |package: &str, target: &str, is_library, folder: &str, program: &str| TestProgram {
            package: package.into(),
            target: target.into(),
            is_library,
            folder: folder.into(),
            program: program.into(),
        };
        let expected = [
            program("megaring-ring", "megaring_ring", true, "/w/host/ring", "/t/ring-1"),
            program("megaring", "cli", false, "/w/host/service", "/t/cli-1"),
        ];
        assert_eq!(test_programs(messages), expected);
    }
}
