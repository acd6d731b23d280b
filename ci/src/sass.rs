//! What the CUDA kernel's machine code must keep to, for Hopper: read from what `nvdisasm` makes of it.
//!
//! The kernel waits more than it computes, so what counts is which loads are under way together, and that none of them
//! is cached past its data's life. The compiler decides both; no test on a CPU can see them. What waits for what stands
//! in the instructions' control bits: a load sets one of six scoreboards, which count, and an instruction waits until
//! those that it names are all zero.

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

/// An instruction, without its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Instruction {
    text: String,
    /// The scoreboard that counts it until its result is there.
    sets: Option<u8>,
    /// The scoreboards that it waits for, a bit each.
    waits: u8,
}

impl Instruction {
    /// Takes in the upper half of the encoding: from bit 41 on 4 bits of stall, 1 of yield, 3 of the scoreboard that is
    /// set by the result and 3 of that set once the operands are read (7 for none), 6 of what is waited for. As read by
    /// MaxAs and its successors; NVIDIA does not say.
    fn take_control(&mut self, upper: u64) {
        let sets = (upper >> 46 & 7) as u8;
        self.sets = (sets != 7).then_some(sets);
        self.waits = (upper >> 52 & 63) as u8;
    }
}

/// Instructions of each function, in the order of the code: those of the kernel itself, and of what it calls.
#[derive(Debug, Default)]
pub(crate) struct Code {
    functions: BTreeMap<String, Vec<Instruction>>,
}

impl Code {
    /// Disassembles an image.
    pub(crate) fn read(workspace: &Workspace, nvdisasm: &Path, image: &Path) -> Result<Self> {
        let text = ask(workspace.command(nvdisasm).args(["-c", "-hex"]).arg(image))
            .ok_or_else(|| format!("nvdisasm could not read {}.", image.display()))?;
        Ok(Self::parse(&text))
    }

    /// An instruction is a line with its address and the lower half of its encoding, and one with the upper half.
    fn parse(text: &str) -> Self {
        let mut code = Self::default();
        let mut function = None;
        for line in text.lines().map(str::trim) {
            if let Some(label) = line.strip_suffix(':') {
                if !label.starts_with('.') {
                    function = Some(label.to_owned());
                }
                continue;
            }
            let Some(function) = &function else { continue };
            let instructions = code.functions.entry(function.clone()).or_default();
            if let Some(upper) = line.strip_prefix("/* 0x").and_then(|line| line.strip_suffix(" */")) {
                if let (Some(last), Ok(upper)) = (instructions.last_mut(), u64::from_str_radix(upper, 16)) {
                    last.take_control(upper);
                }
            } else if let Some((_, instruction)) = line.split_once("*/").filter(|_| line.starts_with("/*")) {
                let text = instruction.split(';').next().unwrap_or_default().trim().to_owned();
                instructions.push(Instruction { text, ..Instruction::default() });
            }
        }
        code
    }

    /// What is not as it must be.
    pub(crate) fn findings(&self) -> Vec<String> {
        let all =
            self.functions.iter().flat_map(|(function, code)| code.iter().map(move |line| (function, &line.text)));
        let past_the_caches = all.filter(|(_, line)| operation(line).contains(".CONSTANT")).map(|(function, line)| {
            format!("`{line}` in {function} is not coherent, but the kernel outlives what it reads")
        });
        let mut findings: Vec<String> = past_the_caches.collect();
        let by_text = |rule: fn(&[&str]) -> Result<()>| {
            move |code: &[Instruction]| rule(&code.iter().map(|line| line.text.as_str()).collect::<Vec<_>>())
        };
        findings.extend(self.check("prepare_search", by_text(loads_come_before_stores)));
        findings.extend(self.check("work_search", by_text(columns_come_before_products)));
        findings.extend(self.check("work_search", by_text(rows_come_before_products)));
        findings.extend(self.check("work_encode", by_text(tables_are_in_shared_memory)));
        findings.extend(self.check("kernel", slot_comes_with_the_tail));
        findings
    }

    /// Checks a function of the device's code by its own name.
    fn check(&self, name: &str, check: impl Fn(&[Instruction]) -> Result<()>) -> Option<String> {
        let mangled = format!("{}{name}", name.len());
        let is_meant = |function: &str| function.contains(&mangled) || function == format!("megaring_{name}");
        let Some((_, code)) = self.functions.iter().find(|(function, _)| is_meant(function)) else {
            return Some(format!("there is no function {name} in the machine code"));
        };
        check(code).err().map(|reason| format!("{name}: {reason}"))
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

/// The float32 screen of one query has loaded twelve pieces of four rows before it multiplies.
fn rows_come_before_products(code: &[&str]) -> Result<()> {
    let (mut loads, mut products, mut most) = (0, 0, 0);
    for line in code {
        match operation(line) {
            barrier if barrier.starts_with("BAR.") => (loads, products) = (0, 0),
            "FFMA" => products += 1,
            load if load.starts_with("LDG.") && load.ends_with(".128") => {
                if products > 0 {
                    loads = 0;
                }
                (loads, products) = (loads + 1, 0);
            }
            _ => {}
        }
        // Four of each piece.
        if loads > most && products >= 4 * loads {
            most = loads;
        }
    }
    match most {
        12.. => Ok(()),
        _ => Err(format!("{most} loads of rows are under way before they are multiplied, and there should be 12")),
    }
}

/// The slot that comes next crosses the bus together with the tail, and whether records are free is found out
/// meanwhile: nothing waits for the two loads before.
fn slot_comes_with_the_tail(code: &[Instruction]) -> Result<()> {
    let is = |at: &usize, wanted: &str| operation(&code[*at].text) == wanted;
    let slot = (0..code.len()).find(|at| is(at, "LDG.E.128.STRONG.SYS")).ok_or("no slot is polled")?;
    let tail = (0..slot).rfind(|at| is(at, "LDG.E.64.STRONG.SYS")).ok_or("no tail is polled")?;
    let record = (slot..code.len()).find(|at| is(at, "LDG.E.STRONG.GPU")).ok_or("no record is looked at")?;
    let waits = |at: &usize, load: usize| code[load].sets.is_none_or(|board| code[*at].waits >> board & 1 == 1);
    if let Some(at) = (tail + 1..=slot).find(|at| waits(at, tail)) {
        return Err(format!("`{}` waits for the tail, and the slot is sent for behind it", code[at].text));
    }
    match (slot + 1..=record).find(|at| waits(at, tail) || waits(at, slot)) {
        Some(at) => Err(format!("`{}` waits for the poll, and records are looked at behind it", code[at].text)),
        None => Ok(()),
    }
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
        let line = |line: &&str| {
            format!(
                "        /*0010*/                   {line} ;   /* 0x000000080c107981 */\n\
                 \x20                                         /* 0x023168000c1f5b00 */\n.L_x_1:\n"
            )
        };
        head + &instructions.iter().map(line).collect::<String>()
    }

    #[test]
    fn instructions_are_read_by_function() {
        let code = Code::parse(&disassembly("work", &["@!P0 LDG.E.64 R4, desc[UR4][R2.64]", "EXIT"]));
        let (function, lines) = code.functions.first_key_value().expect("a function");
        assert!(function.contains("4workEv"));
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["@!P0 LDG.E.64 R4, desc[UR4][R2.64]", "EXIT"]);
        assert_eq!(operation(texts[0]), "LDG.E.64");
        assert_eq!((lines[0].sets, lines[0].waits), (Some(5), 0b10_0011));
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
    fn rows_behind_the_products_are_found() {
        let (load, product) = ("@P0 LDG.E.128 R4, x", "FFMA R1, R2, R3");
        let few = [&[load; 4][..], &[product; 128], &["LDG.E R1, x"; 2], &[load; 4], &[product; 16]].concat();
        let told = rows_come_before_products(&few).expect_err("four are not twelve");
        assert!(told.starts_with("4 loads"), "{told}");
        let good = [&few[..], &[load; 12], &["LDS R1, x"], &[product; 48]].concat();
        assert_eq!(rows_come_before_products(&good), Ok(()));
    }

    #[test]
    fn polls_in_two_turns_are_found() {
        let line = |text: &str, sets, waits| Instruction { text: text.into(), sets, waits };
        let good = [
            line("LDL R22, x", Some(2), 0),
            line("LDG.E.64.STRONG.SYS R16, x", Some(5), 0b10_0011),
            line("LDG.E.128.STRONG.SYS R4, x", Some(4), 0b100),
            line("@P0 LDG.E.STRONG.GPU R18, x", Some(3), 0),
            line("SHFL.IDX PT, R21, R5, 0x9, 0x1f", Some(2), 0b11_0000),
        ];
        assert_eq!(slot_comes_with_the_tail(&good), Ok(()));
        let told = |at: usize, waits| {
            let mut bad = good.clone();
            bad[at].waits = waits;
            slot_comes_with_the_tail(&bad).expect_err("something waits")
        };
        assert!(told(2, 0b10_0000).contains("behind it") && told(2, 0b10_0000).contains(".128."));
        assert!(told(3, 0b10_0000).contains("records") && told(3, 0b1_0000).contains("records"));
        assert!(slot_comes_with_the_tail(&good[..3]).is_err() && slot_comes_with_the_tail(&good[2..]).is_err());
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
