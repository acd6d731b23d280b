//! `cargo xtask`: brings the tools, and runs the demo, the tests and the benches of this workspace.
//!
//! - Needs Rust and Python 3 alone, uses no crate, and keeps everything it brings under `target/`.
//! - Every command may be repeated, and stopped at any moment: what was half done is done again.
//! - Exit status: 0; 1 where the work failed; 2 where the command line was wrong. The demo's own status is passed on.
//! - Errors are sentences that say what to do, on standard error.

mod bench;
mod cli;
mod command;
mod counts;
mod cxx;
mod demo;
mod kernels;
mod libtest;
mod messages;
mod nvcc;
mod peers;
mod ptxas;
mod python;
mod report;
mod sass;
mod serving;
mod steps;
mod stress;
mod test;
mod tidy;
mod vulkan;
mod wheels;
mod workspace;
mod zig;

use std::process::ExitCode;

use cli::Task;
use workspace::Workspace;

/// What failed, as a sentence for the person at the terminal.
pub(crate) type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let task = match cli::parse(&arguments) {
        Ok(task) => task,
        Err(reason) => {
            eprintln!("xtask: {reason}\n\n{}", cli::HELP);
            return ExitCode::from(2);
        }
    };
    run(task).unwrap_or_else(|reason| {
        eprintln!("xtask: {reason}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Help => {
            println!("{}", cli::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Task::Setup => zig::setup(&workspace).map(|zig| {
            println!("Zig {} is ready: {}", zig.version, zig.program.display());
            println!("{}", nvcc::try_setup(&workspace));
            println!("{}", vulkan::try_find(&workspace));
            ExitCode::SUCCESS
        }),
        Task::Demo { arguments } => demo::run(&workspace, &arguments),
        Task::Test { quick, ci, only } => test::run(&workspace, quick, ci, &only),
        Task::Stress(plan) => test::stress(&workspace, &plan),
        Task::Tidy => Ok(tidy::run(&workspace)),
        Task::Bench { name } => bench::run(&workspace, name.as_deref()),
        Task::BenchGates { json } => bench::gates(&workspace, json.as_deref()),
        Task::BenchPeers(wanted) => peers::run(&workspace, &wanted),
    }
}
