//! The kernel's twin on the CPU, for tests: the device code itself, compiled as C++, on a device whose memory is this
//! process's heap.
//!
//! The library is compiled by the C++ compiler that is found (`MEGARING_CXX`; c++, clang++ or g++ on the PATH; the one
//! in Zig), once for each content of the sources, into the build's folder for temporary files. Tests of several
//! processes may do so at once: each compiles to a name of its own, and renames. Every block is a thread, every CUDA
//! thread a fiber of it: this tests what a GPU would run, but for its memory model, its matrix units and its speed.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use megaring_ring::{Memory, fnv1a64};

use crate::abi::{KernelParams, STATE_BYTES};
use crate::device::{Device, DeviceError, DeviceInfo, DevicePtr};

/// Where the device code is.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");
/// What it is compiled with. Contraction would change sums that are promised to the bit.
const FLAGS: [&str; 11] = [
    "-std=c++20",
    "-O2",
    "-g",
    "-shared",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-pthread",
    // A vector that is not aligned ends a kernel on a GPU, and is nothing to a CPU: it ends the test.
    "-fsanitize=alignment",
    "-fsanitize-undefined-trap-on-error",
    // Its checks of jumps do not know that a fiber has a stack of its own.
    "-U_FORTIFY_SOURCE",
];
/// Workers beside the dispatcher, where nobody says otherwise.
const WORKERS: u32 = 3;
/// Device memory, where nobody says otherwise. It is not touched before it is used.
const MEMORY: usize = 2 << 30;
/// Dynamic shared memory of a block.
const SHARED: u32 = 96 << 10;

type Launch = unsafe extern "C" fn(*const KernelParams, u32, u32) -> *mut c_void;
type Join = unsafe extern "C" fn(*mut c_void);
type Stall = unsafe extern "C" fn(*mut c_void, u32);
type IsRunning = unsafe extern "C" fn(*mut c_void) -> c_int;
type TimeJobs = unsafe extern "C" fn(*const c_char, u32, u32, *mut Hops) -> c_int;

/// The compiled library's functions. It is never unloaded: its threads may outlive a test that failed.
#[derive(Clone, Copy)]
struct Functions {
    launch: Launch,
    join: Join,
    is_running: IsRunning,
    stall: Stall,
    time_jobs: TimeJobs,
}

/// When a job's hops are over in virtual time, in nanoseconds since its submission. One that it has not is over with
/// the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hops {
    /// The dispatcher has its slot.
    pub taken: u64,
    /// Its plan is there.
    pub published: u64,
    /// A worker has begun.
    pub claimed: u64,
    /// PREPARE is over.
    pub prepared: u64,
    /// WORK is over.
    pub worked: u64,
    /// FINISH is over.
    pub finished: u64,
    /// Its completion is stored.
    pub told: u64,
    /// The host has seen it.
    pub seen: u64,
}

/// A device of this process.
pub struct Twin {
    functions: Functions,
    info: DeviceInfo,
    /// First byte of each allocation.
    memory: Mutex<BTreeMap<u64, Memory>>,
    grid: Mutex<Grid>,
    recorded: Mutex<Option<KernelParams>>,
}

/// A launch that nobody has joined; null for none.
struct Grid(*mut c_void);

// SAFETY: the library's handle may be used from any thread, by one at a time, which the lock around it sees to.
unsafe impl Send for Grid {}

impl Twin {
    /// A twin with three workers and two gibibytes.
    ///
    /// # Errors
    /// Why there can be none here, for a test that must be skipped then.
    pub fn load() -> Result<Arc<Self>, String> {
        Self::with(WORKERS, MEMORY)
    }

    /// A twin with so many workers and so many bytes of memory.
    ///
    /// # Errors
    /// As [`Twin::load`].
    pub fn with(workers: u32, memory: usize) -> Result<Arc<Self>, String> {
        let functions = functions()?;
        let info = DeviceInfo {
            name: "the kernels' twin on the CPU".into(),
            arch: "c++20".into(),
            multiprocessors: workers + 1,
            blocks: workers + 1,
            memory_total: memory,
            memory_free: memory,
            shared_bytes: SHARED,
        };
        Ok(Arc::new(Self {
            functions,
            info,
            memory: Mutex::default(),
            grid: Mutex::new(Grid(std::ptr::null_mut())),
            recorded: Mutex::default(),
        }))
    }

    /// What `jobs` jobs of a kind would take, one after the other, on a GPU with so many workers, by the latencies in
    /// `cuda/twin/timeline.hpp`, however fast this machine is. The kinds are in `cuda/twin/timed.hpp`. Ends the process
    /// where an answer is wrong.
    ///
    /// # Errors
    /// As [`Twin::load`]; no such kind.
    pub fn time_jobs(kind: &str, workers: u32, jobs: u32) -> Result<Vec<Hops>, String> {
        let functions = functions()?;
        let name = CString::new(kind).map_err(|error| format!("{kind:?}: {error}"))?;
        let mut hops = vec![Hops::default(); jobs as usize];
        // SAFETY: the name ends with a zero, and `hops` has room for as many as it is told.
        match unsafe { (functions.time_jobs)(name.as_ptr(), workers, jobs, hops.as_mut_ptr()) } {
            0 => Err(format!("the twin times no jobs of the kind {kind:?}")),
            _ => Ok(hops),
        }
    }

    /// Bytes that are allocated now.
    #[must_use]
    pub fn allocated(&self) -> usize {
        lock(&self.memory).values().map(Memory::len).sum()
    }

    /// Copies device memory out. Only for memory that no kernel writes meanwhile.
    ///
    /// # Errors
    /// If the span does not lie within one allocation.
    pub fn read(&self, at: DevicePtr, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let first = self.within(at, bytes)?;
        // SAFETY: the span lies within an allocation, which is not freed meanwhile: the caller keeps the rules of
        // `Device`.
        Ok(unsafe { std::slice::from_raw_parts(first, bytes) }.to_vec())
    }

    fn within(&self, at: DevicePtr, bytes: usize) -> Result<*mut u8, DeviceError> {
        let memory = lock(&self.memory);
        let outside = || DeviceError::Sticky(format!("{bytes} bytes at {:#x} are not within an allocation", at.0));
        let (base, block) = memory.range(..=at.0).next_back().ok_or_else(outside)?;
        let offset = (at.0 - base) as usize;
        match offset.checked_add(bytes) {
            Some(end) if end <= block.len() => Ok(block.base().as_ptr().wrapping_add(offset)),
            _ => Err(outside()),
        }
    }

    /// Makes a block of the grid that runs stand still at its next barrier, until this is called again; `None` for no
    /// block. The grid cannot end before.
    pub fn stall(&self, block: Option<u32>) {
        let grid = lock(&self.grid);
        if !grid.0.is_null() {
            // SAFETY: a handle of `launch` that was not joined, since the lock is held.
            unsafe { (self.functions.stall)(grid.0, block.unwrap_or(u32::MAX)) };
        }
    }

    /// Whether a grid runs; one that has ended is joined.
    fn settle(&self, grid: &mut Grid) -> bool {
        // SAFETY: a handle of `launch` that was not joined.
        if grid.0.is_null() || unsafe { (self.functions.is_running)(grid.0) } != 0 {
            return !grid.0.is_null();
        }
        // SAFETY: as above, and it is forgotten here.
        unsafe { (self.functions.join)(std::mem::replace(&mut grid.0, std::ptr::null_mut())) };
        false
    }

    fn refuse_running(&self, what: &str) -> Result<(), DeviceError> {
        match self.settle(&mut lock(&self.grid)) {
            true => Err(DeviceError::Other(format!("{what} while a kernel runs"))),
            false => Ok(()),
        }
    }
}

impl Device for Twin {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr, DeviceError> {
        self.refuse_running("an allocation")?;
        if self.allocated() + bytes > self.info.memory_free {
            return Err(DeviceError::OutOfMemory { bytes, what: "device memory" });
        }
        let memory = heap(bytes)?;
        let at = memory.base().expose_provenance().get() as u64;
        lock(&self.memory).insert(at, memory);
        Ok(DevicePtr(at))
    }

    unsafe fn free(&self, at: DevicePtr) {
        let freed = lock(&self.memory).remove(&at.0);
        debug_assert!(freed.is_some(), "{at:?} was not allocated, or is freed twice");
    }

    fn upload(&self, to: DevicePtr, from: &[u8]) -> Result<(), DeviceError> {
        let first = self.within(to, from.len())?;
        // SAFETY: the span lies within an allocation; the caller promises that nobody reads or writes it meanwhile.
        unsafe { first.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Memory, DeviceError> {
        self.refuse_running("an allocation")?;
        let memory = heap(bytes)?;
        memory.base().expose_provenance();
        Ok(memory)
    }

    fn device_address(&self, memory: &Memory) -> DevicePtr {
        DevicePtr(memory.base().addr().get() as u64)
    }

    fn launch(&self, params: &KernelParams) -> Result<(), DeviceError> {
        let mut grid = lock(&self.grid);
        if self.settle(&mut grid) {
            return Err(DeviceError::Other("a launch while a kernel runs".into()));
        }
        let state = self.within(params.state, STATE_BYTES)?;
        // SAFETY: the span lies within an allocation, and no kernel runs.
        unsafe { state.write_bytes(0, STATE_BYTES) };
        // SAFETY: the library copies the parameters; what they point to is the caller's promise, as for a GPU.
        grid.0 = unsafe { (self.functions.launch)(params, self.info.blocks, self.info.shared_bytes) };
        match grid.0.is_null() {
            true => Err(DeviceError::Other("the twin refused the launch".into())),
            false => Ok(()),
        }
    }

    fn prepare_graph(&self, params: &KernelParams) -> Result<(), DeviceError> {
        *lock(&self.recorded) = Some(*params);
        Ok(())
    }

    fn replay(&self) -> Result<(), DeviceError> {
        let recorded = *lock(&self.recorded);
        self.launch(&recorded.ok_or_else(|| DeviceError::Other("no launch was recorded".into()))?)
    }

    fn is_idle(&self) -> Result<bool, DeviceError> {
        Ok(!self.settle(&mut lock(&self.grid)))
    }

    fn synchronise(&self) -> Result<(), DeviceError> {
        let mut grid = lock(&self.grid);
        if !grid.0.is_null() {
            // SAFETY: a handle of `launch` that was not joined, and it is forgotten here.
            unsafe { (self.functions.join)(std::mem::replace(&mut grid.0, std::ptr::null_mut())) };
        }
        Ok(())
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        if self.settle(&mut lock(&self.grid)) {
            // Its threads use the memory still. Only a test that fails comes here.
            std::mem::forget(std::mem::take(&mut *lock(&self.memory)));
        }
    }
}

/// Loaded once.
fn functions() -> Result<Functions, String> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    LOADED.get_or_init(|| open(&compiled("library", &[])?)).clone()
}

fn heap(bytes: usize) -> Result<Memory, DeviceError> {
    Memory::heap(bytes).map_err(|error| DeviceError::Other(error.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(library: &Path) -> Result<Functions, String> {
    let refused = |error: libloading::Error| format!("{} cannot be loaded: {error}", library.display());
    // SAFETY: the library was compiled from this repository's sources, and does nothing when it is loaded.
    let loaded = unsafe { Library::new(library) }.map_err(refused)?;
    // Never unloaded, so the functions stay.
    let loaded: &'static Library = Box::leak(Box::new(loaded));
    // SAFETY: the types are those of `cuda/twin/library.cpp`.
    unsafe {
        Ok(Functions {
            launch: *loaded.get(b"megaring_twin_launch").map_err(refused)?,
            join: *loaded.get(b"megaring_twin_join").map_err(refused)?,
            stall: *loaded.get(b"megaring_twin_stall").map_err(refused)?,
            is_running: *loaded.get(b"megaring_twin_running").map_err(refused)?,
            time_jobs: *loaded.get(b"megaring_twin_time_jobs").map_err(refused)?,
        })
    }
}

/// The twin as a CUDA driver: a folder with a `libcuda.so.1`, for a process that is told to look there. `missing` is a
/// function that it shall not have. What it writes down, and where it fails, is said in `cuda/twin/driver.cpp`.
///
/// # Errors
/// As [`Twin::load`].
pub fn driver(missing: Option<&str>) -> Result<PathBuf, String> {
    let without: Vec<String> = missing.iter().map(|name| format!("-D{name}={name}_is_missing")).collect();
    let library = compiled("driver", &without)?;
    let folder = library.with_extension("d");
    fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    let (place, own) = (folder.join("libcuda.so.1"), folder.join(format!("libcuda.{}", std::process::id())));
    let put = fs::copy(&library, &own).and_then(|_| fs::rename(&own, &place));
    put.map_err(|error| format!("{} cannot be written: {error}", place.display()))?;
    Ok(folder)
}

/// The compiled library of `cuda/twin/<name>.cpp`, compiled now if it is not there.
fn compiled(name: &str, flags: &[String]) -> Result<PathBuf, String> {
    if cfg!(windows) {
        return Err("the kernels' twin is not made for Windows".into());
    }
    let folder = build_folder();
    let (program, subcommand) = compiler()?;
    let library = folder.join(format!("twin-{name}-{:016x}.so", content(&program, flags)?));
    if library.is_file() {
        return Ok(library);
    }
    fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);
    let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    let own = library.with_extension(format!("{}-{attempt}", std::process::id()));
    let mut compile = Command::new(&program);
    compile.args(subcommand).args(FLAGS).args(flags).arg("-I").arg(SOURCES);
    compile.arg(Path::new(SOURCES).join("twin").join(name).with_extension("cpp"));
    let cannot = |why: &dyn std::fmt::Display| format!("{} cannot compile the kernels' twin: {why}", program.display());
    let output = compile.arg("-o").arg(&own).output().map_err(|error| cannot(&error))?;
    if !output.status.success() {
        return Err(cannot(&String::from_utf8_lossy(&output.stderr)));
    }
    fs::rename(&own, &library).map_err(|error| format!("{} cannot be renamed: {error}", own.display()))?;
    Ok(library)
}

/// Where the build keeps temporary files: beside the folder that this program lies in.
fn build_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let deps = program.parent().filter(|folder| folder.ends_with("deps"));
    match deps.and_then(|deps| deps.parent()?.parent()) {
        Some(target) => target.join("tmp"),
        None => std::env::temp_dir().join("megaring"),
    }
}

/// A number that changes with whatever the library is made of.
fn content(compiler: &Path, flags: &[String]) -> Result<u64, String> {
    let mut files = Vec::new();
    collect(Path::new(SOURCES), &mut files).map_err(|error| format!("{SOURCES} cannot be read: {error}"))?;
    files.sort();
    let mut all = format!("{}\n{FLAGS:?}\n{flags:?}\n", compiler.display()).into_bytes();
    for file in files {
        all.extend(file.as_os_str().as_encoded_bytes());
        all.extend(fs::read(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?);
    }
    Ok(fnv1a64(&all))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

/// A C++ compiler, and what makes one of it where it is more than that.
fn compiler() -> Result<(PathBuf, Option<&'static str>), String> {
    let answers = |program: &Path, argument: &str| {
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    if let Some(named) = std::env::var_os("MEGARING_CXX").map(PathBuf::from) {
        let broken = || format!("MEGARING_CXX names {}, which does not answer as a compiler", named.display());
        return if answers(&named, "--version") { Ok((named, None)) } else { Err(broken()) };
    }
    let on_path = ["c++", "clang++", "g++"].map(PathBuf::from);
    if let Some(found) = on_path.into_iter().find(|program| answers(program, "--version")) {
        return Ok((found, None));
    }
    let target = build_folder().parent().map(Path::to_path_buf);
    let targets = [target, Some(Path::new(SOURCES).join("../../target"))];
    let installed = targets.into_iter().flatten().map(|target| target.join("tools/zig/ziglang/zig"));
    let named = std::env::var_os("MEGARING_ZIG").map(PathBuf::from);
    let mut zigs = named.into_iter().chain(installed).chain([PathBuf::from(OsString::from("zig"))]);
    let zig = zigs.find(|program| answers(program, "version"));
    let missing = "there is no C++ compiler: install one (on Debian: `apt-get install g++`) or run `cargo xtask setup`";
    zig.map(|zig| (zig, Some("c++"))).ok_or_else(|| missing.into())
}
