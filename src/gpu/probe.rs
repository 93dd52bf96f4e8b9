//! What the driver says is there, without a context on any device: for `peftk doctor` and for choosing a device.

use cudarc::driver::{result, sys};

use super::error::describe;

/// The oldest driver that loads PTX of CUDA 13.0, as the driver counts versions (1000 major + 10 minor).
const OLDEST_DRIVER: i32 = 13_000;

/// What was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The CUDA version of the driver ("13.0"); None without a driver.
    pub driver: Option<String>,
    /// The devices in the driver's order: the index is the N of `--device cuda:N`.
    pub devices: Vec<DeviceInfo>,
    /// Why no device can be used, with the mend, in one line; None when there is one.
    pub problem: Option<String>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The driver's name of it.
    pub name: String,
    /// Compute capability, (major, minor).
    pub capability: (u32, u32),
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
}

/// Looks for the driver and its devices. It never fails: what is wrong is told in [`Probe::problem`].
pub fn probe() -> Probe {
    let mut probe = Probe { driver: None, devices: Vec::new(), problem: None };
    match look(&mut probe) {
        Ok(()) if probe.devices.is_empty() => probe.problem = Some(NO_DEVICE.to_owned()),
        Ok(()) => {}
        Err(problem) => probe.problem = Some(problem),
    }
    probe
}

const NO_DEVICE: &str = "no CUDA device: the driver is there but sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use \
                         --device cpu";

fn look(probe: &mut Probe) -> Result<(), String> {
    // SAFETY: opens and closes the driver's library by name; its initialisers are NVIDIA's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "no CUDA driver: libcuda.so was not found; install NVIDIA's driver (580 or later), or use --device cpu"
                .into(),
        );
    }
    let mut version = 0;
    // SAFETY: needs no initialised driver, and writes one int.
    let outcome = unsafe { sys::cuDriverGetVersion(&mut version) };
    outcome.result().map_err(|e| format!("the CUDA driver tells no version: {}; install it anew", describe(e)))?;
    probe.driver = Some(format!("{}.{}", version / 1000, version % 1000 / 10));
    if version < OLDEST_DRIVER {
        return Err(format!(
            "the CUDA driver is too old: it knows CUDA {}.{}, the kernels need 13.0; install NVIDIA's driver 580 or later, or use \
             --device cpu",
            version / 1000,
            version % 1000 / 10
        ));
    }
    if let Err(e) = result::init() {
        if e.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE {
            return Err(NO_DEVICE.to_owned());
        }
        return Err(format!(
            "the CUDA driver does not start: {}; look at nvidia-smi, or use --device cpu",
            describe(e)
        ));
    }
    let count =
        result::device::get_count().map_err(|e| format!("the CUDA driver counts no devices: {}", describe(e)))?;
    for ordinal in 0..count {
        let info =
            device_info(ordinal).map_err(|e| format!("device {ordinal} tells nothing of itself: {}", describe(e)))?;
        probe.devices.push(info);
    }
    Ok(())
}

fn device_info(ordinal: i32) -> Result<DeviceInfo, result::DriverError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` comes from the driver; the calls write one value each.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }?;
    Ok(DeviceInfo {
        name: result::device::get_name(device)?,
        capability: (major.unsigned_abs(), minor.unsigned_abs()),
        memory_bytes: memory as u64,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_problem_is_told_exactly_when_there_is_no_device() {
        let probe = super::probe();
        assert_eq!(probe.devices.is_empty(), probe.problem.is_some(), "{probe:?}");
        assert!(probe.problem.is_none_or(|p| !p.contains('\n')));
    }
}
