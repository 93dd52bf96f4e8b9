//! The energy a GPU takes, as NVIDIA's management library counts it. That library comes with the driver; where it is missing, or the GPU counts
//! nothing, there is no figure and nothing else changes.

use std::cell::Cell;
use std::fmt;

use nvml_wrapper::Nvml;

/// The library's name as the driver installs it, then that of development packages.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Reads a GPU's energy counter. It counts all that the GPU does, whoever asks it to.
pub struct EnergyMeter {
    nvml: Nvml,
    bus_id: String,
    /// The counter when it was read last, in millijoules.
    last: Cell<u64>,
}

impl fmt::Debug for EnergyMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnergyMeter({})", self.bus_id)
    }
}

impl EnergyMeter {
    /// The counter of the GPU at this place on the PCI bus, from now on; none where it cannot be read.
    pub fn open(bus_id: &str) -> Option<Self> {
        let nvml =
            LIBRARIES.iter().find_map(|library| Nvml::builder().lib_path(std::ffi::OsStr::new(library)).init().ok())?;
        let meter = Self { nvml, bus_id: bus_id.to_owned(), last: Cell::new(0) };
        meter.last.set(meter.millijoules()?);
        Some(meter)
    }

    /// Joules since this was asked last, or since the meter was opened.
    pub fn since(&self) -> Option<f64> {
        let now = self.millijoules()?;
        // The counter starts again when the driver is loaded anew.
        let taken = now.saturating_sub(self.last.replace(now));
        Some(taken as f64 / 1000.0)
    }

    fn millijoules(&self) -> Option<u64> {
        self.nvml.device_by_pci_bus_id(self.bus_id.as_str()).ok()?.total_energy_consumption().ok()
    }
}
