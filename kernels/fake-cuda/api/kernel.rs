//! Modules, their functions, and launches.
use super::exports;
use crate::{
    driver::context,
    objects::{Task, Work},
    pointers::{Arguments, Handle, Host, Out},
    status::{Outcome, Status, refuse},
};
use graft_ptx::MOST_SHARED;

/// How images begin that are no text: ELF, and what holds several of them.
const BINARIES: [[u8; 4]; 2] = [*b"\x7fELF", 0xba55_ed50u32.to_le_bytes()];

/// Attributes of a function, by their numbers in `CUfunction_attribute`.
const MOST_THREADS: i32 = 0;
const STATIC_SHARED: i32 = 1;
const LOCAL: i32 = 3;
const DYNAMIC_SHARED: i32 = 8;
const CARVEOUT: i32 = 9;

fn load(image: &Host) -> Outcome<u64> {
    let mut driver = context()?;
    if BINARIES.contains(image.bytes(4)?.try_into().map_err(|_| Status::INVALID_VALUE)?) {
        let what = "a module of machine code: the emulated device takes PTX";
        return refuse(Status::NO_BINARY_FOR_GPU, what);
    }
    driver.load(image.text()?.to_bytes())
}

fn no_function<T>(handle: u64) -> Outcome<T> {
    refuse(Status::INVALID_HANDLE, format!("{handle:#x} is no function of a module that is loaded"))
}

exports! {
    /// Loads PTX.
    fn cuModuleLoadData(to: Out<Handle>, image: Host) { to.set(Handle::of(load(&image)?)) }
    /// Loads a file of PTX.
    fn cuModuleLoad(to: Out<Handle>, path: Host) {
        let path = path.text()?.to_string_lossy();
        let image = std::fs::read(path.as_ref()).map_err(|_| Status::FILE_NOT_FOUND)?;
        to.set(Handle::of(context()?.load(&image)?))
    }
    /// Forgets a module and its functions.
    fn cuModuleUnload(module: Handle) {
        let (mut driver, module) = (context()?, module.number());
        if driver.modules.remove(&module).is_none() {
            return refuse(Status::INVALID_HANDLE, format!("{module:#x} is no module"));
        }
        driver.functions.retain(|_, function| function.module != module);
        Ok(())
    }
    /// A kernel by its name.
    fn cuModuleGetFunction(to: Out<Handle>, module: Handle, name: Host) {
        let name = name.text()?.to_string_lossy();
        to.set(Handle::of(context()?.function(module.number(), &name)?))
    }
    /// A property of a function.
    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, function: Handle) {
        let driver = context()?;
        let Some(function) = driver.functions.get(&function.number()) else { return no_function(function.number()) };
        let found = match attribute {
            MOST_THREADS => function.kernel.most_threads(),
            STATIC_SHARED => function.kernel.static_shared(),
            LOCAL => function.kernel.local(),
            DYNAMIC_SHARED => function.dynamic_shared,
            // Registers, versions and caches mean nothing here.
            2..=16 => 0,
            _ => return Err(Status::INVALID_VALUE),
        };
        value.set(found as i32)
    }
    /// Asks for more shared memory.
    fn cuFuncSetAttribute(function: Handle, attribute: i32, value: i32) {
        let mut driver = context()?;
        let handle = function.number();
        let Some(function) = driver.functions.get_mut(&handle) else { return no_function(handle) };
        let fits = |n: usize| n + function.kernel.static_shared() <= MOST_SHARED;
        match (attribute, usize::try_from(value)) {
            (DYNAMIC_SHARED, Ok(n)) if fits(n) => function.dynamic_shared = n,
            (CARVEOUT, _) => {}
            _ => {
                let what = format!("attribute {attribute} of `{}` cannot be {value}", function.kernel.name());
                return refuse(Status::INVALID_VALUE, what);
            }
        }
        Ok(())
    }
    /// Prefers a division of the cache, which there is none of.
    fn cuFuncSetCacheConfig(function: Handle, _config: u32) {
        if context()?.functions.contains_key(&function.number()) { Ok(()) } else { no_function(function.number()) }
    }
    /// Where a parameter lies, and how many bytes it has.
    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        let driver = context()?;
        let Some(function) = driver.functions.get(&function.number()) else { return no_function(function.number()) };
        let (at, n) = *function.kernel.layout().get(index).ok_or(Status::INVALID_VALUE)?;
        offset.set(at)?;
        bytes.set(n)
    }
    /// Launches a kernel, or records the launch.
    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        arguments: Arguments,
        extra: Arguments,
    ) {
        let mut driver = context()?;
        let handle = function.number();
        let Some(function) = driver.functions.get(&handle).cloned() else { return no_function(handle) };
        if !extra.is_null() {
            return refuse(Status::NOT_SUPPORTED, "arguments in `extra`");
        }
        let arguments = arguments.read(&function.kernel.parameters());
        let name = function.kernel.name().to_string();
        let arguments = arguments.or_else(|s| refuse(s, format!("`{name}` is launched without all its arguments")))?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let work = Work { function, grid, block, shared: shared as usize, arguments };
        work.check()?;
        driver.submit(stream.number(), Task::Launch(Box::new(work)))
    }
}
