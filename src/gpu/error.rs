//! The driver's error codes as this crate's errors.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

use crate::Error;

/// "CUDA_ERROR_NAME (what it means)". Only for a driver that is there: the texts come from it.
pub(super) fn describe(error: DriverError) -> String {
    let text = |result: Result<&std::ffi::CStr, DriverError>| result.ok().map(|t| t.to_string_lossy().into_owned());
    let name = text(error.error_name()).unwrap_or_else(|| format!("{:?}", error.0));
    match text(error.error_string()) {
        Some(meaning) => format!("{name} ({meaning})"),
        None => name,
    }
}

/// A driver call that failed while `doing` ("launch dora_norm_f32", "copy 4096 bytes to the device").
///
/// A device that is full is the user's to mend; anything else that comes this late is a fault of the device or a bug. Launches
/// are asynchronous: after one that failed on the device, the error shows at the next call that waits.
pub(super) fn device(doing: impl std::fmt::Display, error: DriverError) -> Error {
    if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Error::input(format!(
            "cannot {doing}: the GPU's memory is full; free some, train with --memory lean or a smaller --batch-size, or use --device cpu"
        ));
    }
    Error::Internal(format!("cannot {doing}: {}", describe(error)))
}
