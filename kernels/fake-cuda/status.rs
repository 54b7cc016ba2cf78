//! What the driver answers: its error codes with their names.
use std::ffi::CStr;

/// An error code of the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status(pub(crate) u32);

/// What a call comes to.
pub(crate) type Outcome<T = ()> = Result<T, Status>;

/// Declares the codes and the table of their names and meanings.
macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl Status {
            $(pub(crate) const $name: Status = Status($code);)*
        }
        /// Code, name and meaning.
        const TABLE: &[(u32, &CStr, &CStr)] = &[
            (0, c"CUDA_SUCCESS", c"no error"),
            $(($code, match CStr::from_bytes_with_nul(concat!("CUDA_ERROR_", stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            }, $text),)*
        ];
    };
}

codes! {
    INVALID_VALUE = 1, c"invalid argument";
    OUT_OF_MEMORY = 2, c"out of memory";
    NOT_INITIALIZED = 3, c"initialization error";
    INVALID_DEVICE = 101, c"invalid device ordinal";
    INVALID_CONTEXT = 201, c"invalid device context";
    NO_BINARY_FOR_GPU = 209, c"no kernel image is available for execution on the device";
    INVALID_PTX = 218, c"a PTX JIT compilation failed";
    FILE_NOT_FOUND = 301, c"file not found";
    INVALID_HANDLE = 400, c"invalid resource handle";
    ILLEGAL_STATE = 401, c"the operation cannot be performed in the present state";
    NOT_FOUND = 500, c"named symbol not found";
    ILLEGAL_ADDRESS = 700, c"an illegal memory access was encountered";
    NOT_SUPPORTED = 801, c"operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, c"operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, c"operation failed due to a previous error during capture";
    STREAM_CAPTURE_UNMATCHED = 903, c"the capture was not initiated in this stream";
}

/// Name and meaning of a code.
pub(crate) fn described(code: u32) -> Option<(&'static CStr, &'static CStr)> {
    TABLE.iter().find(|row| row.0 == code).map(|row| (row.1, row.2))
}

/// The code that a call answers with.
pub(crate) fn code_of(call: impl FnOnce() -> Outcome) -> u32 {
    call().err().map_or(0, |status| status.0)
}

/// Says what is wrong.
#[expect(clippy::print_stderr, reason = "whoever runs the program must see what a real driver would not say")]
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("fake-cuda: {what}");
}

/// Says what is wrong, and answers with a code.
pub(crate) fn refuse<T>(status: Status, what: impl std::fmt::Display) -> Outcome<T> {
    say(what);
    Err(status)
}
