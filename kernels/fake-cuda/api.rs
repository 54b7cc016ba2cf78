//! The driver's interface: the functions that programs look for in `libcuda.so`, by their names there.
pub mod device;
pub mod event;
pub mod kernel;
pub mod memory;
pub mod stream;

/// Exports functions under the driver's names. Each body comes to an `Outcome`, whose code is returned.
macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$doc])*
            // SAFETY: the names are the driver's, in whose place this library is loaded; nothing else here has them.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($arg: $kind),*) -> u32 {
                $crate::status::code_of(|| $body)
            }
        )*
    };
}
pub(crate) use exports;
