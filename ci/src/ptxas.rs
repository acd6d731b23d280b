//! What NVIDIA's assembler (`ptxas -v`) says about each kernel: registers, stack, spills, shared memory.
//!
//! A spill is a register that had to go to memory and back. In the ring's kernels, and in what they call, one is a
//! finding: they are written so that everything fits. So is a register beyond an architecture's budget. A report in
//! another form than the one known here is an error, never a pass.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use crate::Result;

/// In the names of all functions that must not spill: the kernels' begin with it, and the others' namespace has it.
const HOT: &str = "megaring";

/// Registers of a thread that a kernel of the ring may take, by architecture: as many as it takes now, compiled by the
/// pinned nvcc. There are 255; what takes more of them than before is to be a decision, made before the last of them is
/// gone and the kernel spills.
const REGISTERS: [(&str, u64); 7] =
    [("sm_75", 240), ("sm_80", 240), ("sm_86", 240), ("sm_89", 240), ("sm_90a", 240), ("sm_100", 254), ("sm_120", 254)];

/// What one function needs on one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Such as `sm_90a`.
    pub(crate) architecture: String,
    /// As the assembler knows it.
    pub(crate) function: String,
    /// Registers of a thread, and static shared memory of a block in bytes; a function that kernels call has none of
    /// its own.
    pub(crate) kernel: Option<Kernel>,
    /// Bytes of a thread.
    pub(crate) stack: u64,
    /// Bytes of a thread that are written to memory for want of a register.
    pub(crate) spill_stores: u64,
    /// Bytes of a thread that are read back.
    pub(crate) spill_loads: u64,
}

/// What is counted for a kernel alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    registers: u64,
    shared: u64,
}

impl Usage {
    /// Whether it is one of the ring's kernels.
    pub(crate) fn is_hot_kernel(&self) -> bool {
        self.kernel.is_some() && self.function.starts_with(HOT)
    }

    /// What is wrong with the registers of one of the ring's kernels, if something is.
    pub(crate) fn beyond_budget(&self) -> Option<String> {
        let Self { architecture, function, .. } = self;
        let Kernel { registers, .. } = self.kernel.filter(|_| self.is_hot_kernel())?;
        match REGISTERS.iter().find(|(known, _)| known == architecture) {
            Some((_, budget)) if registers <= *budget => None,
            Some((_, budget)) => {
                Some(format!("{function} takes {registers} registers for {architecture}, whose budget is {budget}"))
            }
            None => Some(format!("{function} takes {registers} registers for {architecture}, which has no budget")),
        }
    }

    /// Whether it is one, or called by one, and spills.
    pub(crate) fn is_hot_and_spills(&self) -> bool {
        self.function.contains(HOT) && (self.spill_stores > 0 || self.spill_loads > 0)
    }
}

/// Reads the report; the error says what is missing in it.
pub(crate) fn parse(report: &str) -> Result<Vec<Usage>> {
    let (mut usages, mut kernel): (Vec<Usage>, _) = (Vec::new(), None);
    let (mut architecture, mut function) = (String::new(), None);
    for line in report.lines() {
        let said =
            line.strip_prefix("ptxas info").map_or(line, |rest| rest.trim_start().trim_start_matches(':')).trim();
        if let Some(rest) = said.strip_prefix("Compiling entry function ") {
            let names: Vec<&str> = rest.split('\'').collect();
            let [_, name, _, target, _] = names[..] else { return Err(unknown(line)) };
            architecture = target.to_owned();
            kernel = Some(name.to_owned());
        } else if let Some(name) = said.strip_prefix("Function properties for ") {
            function = Some(name.to_owned());
        } else if said.contains(" bytes spill stores") {
            let function = function.take().ok_or_else(|| unknown(line))?;
            let of = |what: &str| before(said, what).ok_or_else(|| unknown(line));
            usages.push(Usage {
                architecture: architecture.clone(),
                function,
                kernel: None,
                stack: of(" bytes stack frame")?,
                spill_stores: of(" bytes spill stores")?,
                spill_loads: of(" bytes spill loads")?,
            });
        } else if let Some(rest) = said.strip_prefix("Used ") {
            let name = kernel.take().ok_or_else(|| unknown(line))?;
            let registers = before(rest, " registers").ok_or_else(|| unknown(line))?;
            let usage = usages.iter_mut().rfind(|usage| usage.function == name && usage.architecture == architecture);
            let shared = before(rest, " bytes smem").unwrap_or(0);
            usage.ok_or_else(|| unknown(line))?.kernel = Some(Kernel { registers, shared });
        }
    }
    match (kernel, function) {
        (None, None) => Ok(usages),
        (Some(name), _) | (None, Some(name)) => Err(format!("ptxas did not say everything about `{name}`")),
    }
}

fn unknown(line: &str) -> String {
    format!("ptxas said something in a form that is not known here: `{line}`")
}

/// The number that stands before `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let head = text.split_once(word)?.0;
    let digits = head.bytes().rev().take_while(u8::is_ascii_digit).count();
    head[head.len() - digits..].parse().ok()
}

/// 90 for `sm_90a`.
fn generation(architecture: &str) -> u32 {
    architecture.trim_matches(|character: char| !character.is_ascii_digit()).parse().unwrap_or(0)
}

/// Usages as a table, by function and architecture. Functions that kernels call have no registers of their own; those
/// that also need no stack and spill nothing are only counted.
pub(crate) struct Table<'a>(pub(crate) &'a [Usage]);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain =
            |usage: &&Usage| usage.kernel.is_none() && usage.stack + usage.spill_stores + usage.spill_loads == 0;
        let (plain, mut usages): (Vec<&Usage>, Vec<&Usage>) = self.0.iter().partition(is_plain);
        usages.sort_by_key(|usage| (usage.kernel.is_none(), &usage.function, generation(&usage.architecture)));
        let width = usages.iter().map(|usage| usage.function.len()).max().unwrap_or(0).max("function".len());
        write!(
            f,
            "{:width$}  {:8}  {:>9}  {:>6}  {:>6}  {:>12}  {:>11}",
            "function", "for", "registers", "shared", "stack", "spill stores", "spill loads"
        )?;
        for Usage { architecture, function, kernel, stack, spill_stores, spill_loads } in usages {
            let of_kernel = |value: fn(Kernel) -> u64| kernel.map_or("-".into(), |kernel| value(kernel).to_string());
            let (registers, shared) = (of_kernel(|kernel| kernel.registers), of_kernel(|kernel| kernel.shared));
            write!(
                f,
                "\n{function:width$}  {architecture:8}  {registers:>9}  {shared:>6}  {stack:>6}  {spill_stores:>12}  \
                 {spill_loads:>11}"
            )?;
        }
        let called: BTreeSet<&str> = plain.iter().map(|usage| usage.function.as_str()).collect();
        write!(f, "\nand {} called functions without stack or spills", called.len())
    }
}

/// The first load in this PTX that goes past the coherent caches, where there is one: its data may be old when the
/// kernel outlives it.
pub(crate) fn non_coherent_load(ptx: &str) -> Option<&str> {
    let is_load = |line: &&str| {
        line.split_whitespace().any(|word| word.starts_with("ld.") && word.split('.').any(|part| part == "nc"))
    };
    ptx.lines().map(str::trim).filter(|line| !line.starts_with("//")).find(is_load)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nvcc 13.0.88, over kernels that were written to spill, to call and to do neither.
    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5otherPi' for 'sm_90a'
ptxas info    : Function properties for _Z5otherPi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
ptxas info    : Compile time = 1.371 ms
ptxas info    : Compiling entry function 'megaring_calls' for 'sm_90a'
ptxas info    : Function properties for megaring_calls
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compile time = 14.996 ms
ptxas info    : Function properties for _Z7helper2Pdi
    0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'megaring_spill' for 'sm_75'
ptxas info    : Function properties for megaring_spill
    288 bytes stack frame, 572 bytes spill stores, 592 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 288 bytes cumulative stack size, 360 bytes cmem[0]
ptxas info    : Compile time = 13.242 ms
";

    fn usage(function: &str, kernel: Option<(u64, u64)>, [stack, stores, loads]: [u64; 3]) -> Usage {
        Usage {
            architecture: if function == "megaring_spill" { "sm_75" } else { "sm_90a" }.into(),
            function: function.into(),
            kernel: kernel.map(|(registers, shared)| Kernel { registers, shared }),
            stack,
            spill_stores: stores,
            spill_loads: loads,
        }
    }

    #[test]
    fn a_report_is_read() {
        let expected = [
            usage("_Z5otherPi", Some((8, 0)), [0, 0, 0]),
            usage("megaring_calls", Some((40, 2048)), [8, 0, 0]),
            usage("_Z7helper2Pdi", None, [0, 8, 4]),
            usage("megaring_spill", Some((64, 0)), [288, 572, 592]),
        ];
        assert_eq!(parse(REPORT), Ok(expected.to_vec()));
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn a_spill_in_a_hot_kernel_is_found() {
        let spilling = |report: &str| -> Vec<String> {
            let usages = parse(report).expect("the report is read");
            usages.into_iter().filter(Usage::is_hot_and_spills).map(|usage| usage.function).collect()
        };
        assert_eq!(spilling(REPORT), ["megaring_spill"]);
        let clean = REPORT.replace("572 bytes spill stores, 592 bytes", "0 bytes spill stores, 0 bytes");
        assert_eq!(spilling(&clean), [""; 0]);
        let one_load = clean.replacen(
            "0 bytes spill loads\nptxas info    : Used 40",
            "4 bytes spill loads\nptxas info    : Used 40",
            1,
        );
        assert_eq!(spilling(&one_load), ["megaring_calls"]);
        let called = REPORT.replace("_Z7helper2Pdi", "_ZN8megaring7helper2EPdi");
        assert_eq!(spilling(&called), ["_ZN8megaring7helper2EPdi", "megaring_spill"]);
        assert_eq!(spilling(&REPORT.replace("megaring_spill", "probe")), [""; 0], "not a kernel of the ring");
    }

    #[test]
    fn registers_beyond_an_architectures_budget_are_found() {
        let beyond = |report: &str| -> Vec<String> {
            let usages = parse(report).expect("the report is read");
            usages.iter().filter_map(Usage::beyond_budget).collect()
        };
        assert_eq!(beyond(REPORT), [""; 0]);
        for (architecture, budget) in REGISTERS {
            let takes = |registers: u64| {
                let report =
                    REPORT.replace("'megaring_spill' for 'sm_75'", &format!("'megaring_spill' for '{architecture}'"));
                beyond(&report.replace("Used 64 registers", &format!("Used {registers} registers")))
            };
            assert_eq!(takes(budget), [""; 0], "{architecture}");
            let found =
                format!("megaring_spill takes {} registers for {architecture}, whose budget is {budget}", budget + 1);
            assert_eq!(takes(budget + 1), [found]);
        }
        let unknown = REPORT.replace("'megaring_spill' for 'sm_75'", "'megaring_spill' for 'sm_130'");
        assert_eq!(beyond(&unknown), ["megaring_spill takes 64 registers for sm_130, which has no budget"]);
        assert_eq!(
            beyond(&REPORT.replace("Used 8 registers", "Used 250 registers")),
            [""; 0],
            "not a kernel of the ring"
        );
    }

    #[test]
    fn a_report_in_another_form_is_no_pass() {
        for (from, to) in [
            ("Compiling entry function 'megaring_spill' for 'sm_75'", "Compiling entry function megaring_spill"),
            ("Function properties for megaring_spill", "Properties of megaring_spill"),
            ("288 bytes stack frame, 572", "572"),
            ("592 bytes spill loads", "592 B of spill loads"),
            ("Used 64 registers, used 0", "Used sixty-four, used 0"),
            ("ptxas info    : Used 64 registers", "ptxas info    : 64 registers"),
        ] {
            assert!(REPORT.contains(from), "{from}");
            assert!(parse(&REPORT.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn the_table_is_by_function_and_architecture() {
        let mut usages = parse(REPORT).expect("the report is read");
        usages.push(Usage { architecture: "sm_100".into(), ..usages[1].clone() });
        usages.retain(|usage| !usage.function.starts_with("_Z5"));
        usages.push(usage("plain", None, [0, 0, 0]));
        let expected = "\
function        for       registers  shared   stack  spill stores  spill loads
megaring_calls  sm_90a           40    2048       8             0            0
megaring_calls  sm_100           40    2048       8             0            0
megaring_spill  sm_75            64       0     288           572          592
_Z7helper2Pdi   sm_90a            -       -       0             8            4
and 1 called functions without stack or spills";
        assert_eq!(Table(&usages).to_string(), expected);
    }

    #[test]
    fn a_non_coherent_load_is_found() {
        let found = non_coherent_load("\tcvta.to.global.u64 \t%rd2, %rd1;\n\tld.global.nc.f32 \t%f1, [%rd6];\n");
        assert_eq!(found, Some("ld.global.nc.f32 \t%f1, [%rd6];"));
        assert!(non_coherent_load("@%p1 ld.global.L1::no_allocate.nc.v4.u32 {%r1}, [%rd1];").is_some());
        for fine in
            ["// ld.global.nc.f32", "ld.global.f32 %f1, [%rd6];", "ld.relaxed.sys.global.u64 %nc, [%rd1];", "bra.nc;"]
        {
            assert_eq!(non_coherent_load(fine), None, "{fine}");
        }
    }
}
