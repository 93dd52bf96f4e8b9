//! Devices that are not there, for planning: what a step takes is what the same step takes on one of them.

use std::sync::{Arc, Mutex, OnceLock};

use super::arena::Arena;
use super::context::{Inner, Memory, Usage};
use super::guard::{self, Guard};
use super::{Arch, Device, DeviceInfo};

impl Device {
    /// A device that is not there: blocks have a place in an endless arena and no content, launches do nothing.
    pub fn dry(arch: Arch) -> Self {
        Self::dry_guarded_by(arch, guard::from_environment())
    }

    /// A dry device with this one's kernels, in guard mode if this one is: what runs on it takes what it will take here.
    pub fn dry_twin(&self) -> Self {
        Self::dry_with(self.arch(), self.is_guarded())
    }

    /// A dry device that is in guard mode or not, whatever the environment says.
    pub(super) fn dry_with(arch: Arch, guarded: bool) -> Self {
        Self::dry_guarded_by(arch, guard::asked(guarded))
    }

    fn dry_guarded_by(arch: Arch, guard: OnceLock<Guard>) -> Self {
        let info = DeviceInfo { name: "a GPU that is not here".into(), capability: (0, 0), memory_bytes: u64::MAX };
        Self(Arc::new(Inner {
            info,
            arch,
            // An H100's; it decides how a launch is cut, never how much memory it takes.
            multiprocessors: 132,
            real: None,
            memory: Mutex::new(Memory::Arena { base: 0, arena: Arena::new(1 << 62), outside: Usage::default() }),
            guard,
            functions: Mutex::default(),
            modules: Mutex::default(),
        }))
    }
}
