//! Where a command's arithmetic goes: the CPU, or a GPU and the numbers it computes in.

use crate::config::{Device, Precision};
use crate::gpu::{self, Arch};
use crate::{Error, Result, kernels};

/// A device that is there.
#[derive(Clone, Debug)]
pub enum Place {
    /// f32 on all threads.
    Cpu,
    /// An open GPU.
    Cuda(gpu::Device, Precision),
}

impl Place {
    /// The device that `--device` and `--precision` name. `auto` is the first GPU where this executable carries kernels that it runs, else
    /// the CPU.
    ///
    /// # Errors
    /// [`Error::Input`] for `cuda` without kernels, driver or such a GPU, and for bf16 on the CPU.
    pub fn choose(device: Device, precision: Option<Precision>) -> Result<Self> {
        let precision_there = precision.unwrap_or(Precision::Bf16);
        let place = match device {
            Device::Cpu => Self::Cpu,
            Device::Auto if !gpu_is_there() => Self::Cpu,
            Device::Auto => Self::Cuda(gpu::Device::open(0)?, precision_there),
            Device::Cuda(ordinal) => {
                let named = |e: Error| match e {
                    Error::Input(text) if !text.starts_with("--device") => {
                        Error::input(format!("--device cuda: {text}"))
                    }
                    other => other,
                };
                kernels::require().map_err(named)?;
                Self::Cuda(gpu::Device::open(ordinal).map_err(named)?, precision_there)
            }
        };
        match (&place, precision) {
            (Self::Cpu, Some(Precision::Bf16)) => Err(Error::input(
                "--precision bf16: no GPU is used, and the CPU computes in f32; leave it out or use --precision f32",
            )),
            _ => Ok(place),
        }
    }

    /// What `config.toml` says of it: a run that goes on, or is begun again from its settings, does so in the same place.
    pub fn settings(&self, asked: Device) -> (Device, Option<Precision>) {
        match (self, asked) {
            (Self::Cpu, _) => (Device::Cpu, Some(Precision::F32)),
            (Self::Cuda(_, precision), Device::Cuda(ordinal)) => (Device::Cuda(ordinal), Some(*precision)),
            (Self::Cuda(_, precision), _) => (Device::Cuda(0), Some(*precision)),
        }
    }

    /// The device by its name.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => match rayon::current_num_threads() {
                1 => "CPU, 1 thread".to_owned(),
                threads => format!("CPU, {threads} threads"),
            },
            Self::Cuda(device, _) => device.info().name.clone(),
        }
    }

    /// In which numbers it computes.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Cuda(_, precision) => *precision,
        }
    }

    /// The build of the kernels, on a GPU.
    pub fn arch(&self) -> Option<Arch> {
        match self {
            Self::Cpu => None,
            Self::Cuda(device, _) => Some(device.arch()),
        }
    }

    /// Device and numbers, for the log.
    pub fn words(&self) -> String {
        match self {
            Self::Cpu => format!("{}, {}", self.name(), self.precision().name()),
            Self::Cuda(device, precision) => {
                format!("{}, {}, kernels for {}", self.name(), precision.name(), device.arch())
            }
        }
    }
}

/// Whether `auto` takes a GPU.
fn gpu_is_there() -> bool {
    let first = || gpu::probe().devices.into_iter().next();
    kernels::require().is_ok() && first().is_some_and(|info| Arch::for_capability(info.capability).is_some())
}
