//! What the CUDA kernel's machine code must keep to, for Hopper: read from what `nvdisasm` makes of it.
//!
//! The kernel waits more than it computes, so what counts is which loads are under way together, and that none of them
//! is cached past its data's life. The compiler decides both; no test on a CPU can see them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::command::ask;
use crate::wheels::Wheels;
use crate::workspace::Workspace;

/// The disassembler; it reads what earlier releases of the compiler made.
const PACKAGE: &str = "nvidia-cuda-nvdisasm==13.2.51";

/// Brings the pinned disassembler, unless it is there already. The error is one sentence that says what to do.
pub(crate) fn disassembler(workspace: &Workspace) -> Result<PathBuf> {
    let answers =
        |program: &Path| ask(workspace.command(program).arg("--version")).is_some_and(|text| text.contains("nvdisasm"));
    let wheels = Wheels {
        title: PACKAGE.replace("==", " "),
        folder: "nvdisasm",
        packages: vec![PACKAGE.into()],
        stamp: PACKAGE.into(),
        program: Path::new("nvidia/cu13/bin/nvdisasm").into(),
        answers: &answers,
        otherwise: "leave this step out".into(),
    };
    wheels.bring(workspace)
}

/// Instructions of each function, in the order of the code: those of the kernel itself, and of what it calls.
#[derive(Debug, Default)]
pub(crate) struct Code {
    functions: BTreeMap<String, Vec<String>>,
}

impl Code {
    /// Disassembles an image.
    pub(crate) fn read(workspace: &Workspace, nvdisasm: &Path, image: &Path) -> Result<Self> {
        let text = ask(workspace.command(nvdisasm).arg("-c").arg(image))
            .ok_or_else(|| format!("nvdisasm could not read {}.", image.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut code = Self::default();
        let mut function = None;
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.strip_suffix(':') {
                if !label.starts_with('.') {
                    function = Some(label.to_owned());
                }
            } else if let (Some(function), Some((_, instruction))) = (&function, line.split_once("*/"))
                && line.starts_with("/*")
            {
                let instruction = instruction.split(';').next().unwrap_or_default().trim();
                code.functions.entry(function.clone()).or_default().push(instruction.to_owned());
            }
        }
        code
    }

    /// What is not as it must be.
    pub(crate) fn findings(&self) -> Vec<String> {
        let all = self.functions.iter().flat_map(|(function, code)| code.iter().map(move |line| (function, line)));
        let past_the_caches = all.filter(|(_, line)| operation(line).contains(".CONSTANT")).map(|(function, line)| {
            format!("`{line}` in {function} is not coherent, but the kernel outlives what it reads")
        });
        let mut findings: Vec<String> = past_the_caches.collect();
        findings.extend(self.check("prepare_search", loads_come_before_stores));
        findings.extend(self.check("work_search", columns_come_before_products));
        findings.extend(self.check("work_encode", tables_are_in_shared_memory));
        findings
    }

    /// Checks a function of the device's code by its own name.
    fn check(&self, name: &str, check: fn(&[&str]) -> Result<()>) -> Option<String> {
        let mangled = format!("{}{name}", name.len());
        let Some((_, code)) = self.functions.iter().find(|(function, _)| function.contains(&mangled)) else {
            return Some(format!("there is no function {name} in the machine code"));
        };
        let code: Vec<&str> = code.iter().map(String::as_str).collect();
        check(&code).err().map(|reason| format!("{name}: {reason}"))
    }
}

/// An instruction without its guard and its operands, such as `LDG.E.64`.
fn operation(instruction: &str) -> &str {
    let unguarded = match instruction.strip_prefix('@') {
        Some(guarded) => guarded.split_once(' ').map_or("", |(_, rest)| rest),
        None => instruction,
    };
    unguarded.split_whitespace().next().unwrap_or_default()
}

fn is_global_load(instruction: &str) -> bool {
    ["LDG.", "LD."].iter().any(|load| operation(instruction).starts_with(load))
}
fn is_global_store(instruction: &str) -> bool {
    ["STG.", "ST."].iter().any(|store| operation(instruction).starts_with(store))
}

/// A query crosses the bus by four loads of 16 bytes a thread, which wait for one another where a store stands between.
fn loads_come_before_stores(code: &[&str]) -> Result<()> {
    let is_wide = |line: &&str| operation(line).ends_with(".128");
    let store = code.iter().position(|line| is_wide(line) && is_global_store(line));
    let store = store.ok_or("nothing is stored by 16 bytes")?;
    // Those of another way to load a query stand further ahead, behind stores of their own.
    let begin = code[..store].iter().rposition(|line| is_global_store(line)).map_or(0, |before| before + 1);
    match code[begin..store].iter().filter(|line| is_wide(line) && is_global_load(line)).count() {
        4.. => Ok(()),
        loads => Err(format!("{loads} loads of 16 bytes are under way before the first store, and there should be 4")),
    }
}

/// With few queries a warp has loaded all that it needs of a group of rows before it multiplies.
fn columns_come_before_products(code: &[&str]) -> Result<()> {
    let is_product = |line: &&str| operation(line).starts_with("IMMA");
    let products = code.iter().filter(|line| is_product(line)).count();
    if products == 0 {
        return Err("there are no matrix multiplies".into());
    }
    // Twelve products without a load between them are a whole slab of one query.
    let mut run: Vec<usize> = Vec::new();
    for (at, line) in code.iter().enumerate() {
        if is_product(line) {
            run.push(at);
        } else if operation(line).starts_with("LDG.") && run.len() < 12 {
            run.clear();
        } else if operation(line).starts_with("LDG.") && run.len() == 12 {
            return Err(format!("`{line}` comes behind the products of one query"));
        } else if operation(line).starts_with("BAR.") {
            if run.len() == 12 {
                return Ok(());
            }
            run.clear();
        } else if run.len() > 12 {
            run.clear();
        }
    }
    Err("no slab of twelve steps is loaded before it is multiplied".into())
}

/// Each byte of text is three look-ups, one after the other: of the byte, of its class, of the next state.
fn tables_are_in_shared_memory(code: &[&str]) -> Result<()> {
    let look_ups: Vec<usize> = (0..code.len()).filter(|&at| operation(code[at]).starts_with("LDS.U")).collect();
    let is_short = |at: &usize| operation(code[*at]) == "LDS.U16";
    let state = look_ups.iter().position(is_short).ok_or("no state is looked up in shared memory")?;
    let first = look_ups[state.checked_sub(2).ok_or("a state is looked up without the text or its class")?];
    match code[first..=look_ups[state]].iter().find(|line| operation(line).starts_with("LD.")) {
        Some(line) => Err(format!("`{line}` must find out at each byte of text what memory it loads from")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disassembly(function: &str, instructions: &[&str]) -> String {
        let head = format!(".text.megaring_kernel:\n$megaring_kernel$_ZN8megaring{}{function}Ev:\n", function.len());
        let lines = instructions.iter().map(|line| format!("        /*0010*/                   {line} ;\n.L_x_1:\n"));
        head + &lines.collect::<String>()
    }

    #[test]
    fn instructions_are_read_by_function() {
        let code = Code::parse(&disassembly("work", &["@!P0 LDG.E.64 R4, desc[UR4][R2.64]", "EXIT"]));
        let (function, lines) = code.functions.first_key_value().expect("a function");
        assert!(function.contains("4workEv"));
        assert_eq!(lines, &["@!P0 LDG.E.64 R4, desc[UR4][R2.64]", "EXIT"]);
        assert_eq!(operation(&lines[0]), "LDG.E.64");
    }

    #[test]
    fn a_load_past_the_caches_is_found() {
        let code = Code::parse(&disassembly("work", &["LDG.E.CONSTANT R4, desc[UR4][R2.64]"]));
        assert!(code.findings()[0].contains("not coherent"));
    }

    #[test]
    fn loads_that_wait_for_stores_are_found() {
        let (load, store) = ("@P1 LDG.E.128 R4, x", "STG.E.128 x, R4");
        let narrow = ["LD.E R0, x", "STG.E x, R0"];
        let good = [&narrow[..], &[load; 4], &[store; 4]].concat();
        assert_eq!(loads_come_before_stores(&good), Ok(()));
        let in_turn = [load, store].repeat(4);
        assert!(loads_come_before_stores(&in_turn).is_err_and(|reason| reason.starts_with("1 loads")));
        assert!(loads_come_before_stores(&narrow).is_err());
    }

    #[test]
    fn columns_behind_the_products_are_found() {
        let many = [&["LDG.E.64 R2, x"][..], &["IMMA R1"; 32], &["LDG.E.64 R2, x", "BAR.SYNC"]].concat();
        let few = |behind: &'static str| {
            [&many[..], &["LDG.E.64 R2, x"; 28], &["IMMA R1"; 12], &["FFMA R1", behind, "BAR.SYNC"]].concat()
        };
        assert_eq!(columns_come_before_products(&few("FADD R1")), Ok(()));
        assert!(columns_come_before_products(&few("LDG.E.64 R3, x")).is_err_and(|reason| reason.contains("R3")));
        assert!(columns_come_before_products(&many).is_err());
        assert!(columns_come_before_products(&["FADD R1"]).is_err_and(|reason| reason.contains("matrix")));
    }

    #[test]
    fn tables_that_may_be_anywhere_are_found() {
        let good = ["LD.E R0, x", "LDS.U8 R1, x", "IADD", "LDS.U8 R1, x", "LDS.U16 R2, x", "LD.E R0, x"];
        assert_eq!(tables_are_in_shared_memory(&good), Ok(()));
        let bad = ["LDS.U8 R1, x", "LD.E.U8 R3, x", "LDS.U8 R1, x", "LDS.U16 R2, x"];
        assert!(tables_are_in_shared_memory(&bad).is_err_and(|reason| reason.contains("R3")));
        assert!(tables_are_in_shared_memory(&["LDS.U8 R1, x", "LD.E.U16 R2, x"]).is_err());
    }

    #[test]
    fn a_function_that_is_gone_is_found() {
        let code = Code::parse(&disassembly("work", &["EXIT"]));
        assert!(code.findings().iter().any(|finding| finding.contains("no function prepare_search")));
    }
}
